//! Audits a random sample of the customers at each tick, with the code of `windfall audit`. It repairs nothing. The metrics have
//! the result.

use std::time::Duration;

use ::metrics::counter;
use entity::job;
use tokio::time::timeout;

use super::queue::{self, End};
use crate::app::App;
use crate::app::audit;
use crate::app::error::Error;
use crate::metrics;

/// The maximum time for one customer, below the lease of the job. A customer with a longer history is left to `windfall audit`.
const CUSTOMER_TIMEOUT: Duration = Duration::from_secs(45);

/// Audits a sample.
pub(super) async fn run_tick(app: &App, job: &job::Model) -> Result<End, Error> {
    for id in audit::sample(app, app.job_settings.audit_customers).await? {
        match timeout(CUSTOMER_TIMEOUT, audit::run_customer(app, id)).await {
            Ok(differences) => {
                let differences = differences?;
                counter!(metrics::AUDIT_CUSTOMERS).increment(1);
                counter!(metrics::AUDIT_DIFFERENCES).increment(differences);
                if differences > 0 {
                    // The differences themselves contain the shop's ids, which the log must not have.
                    tracing::error!(
                        customer = id.0,
                        differences,
                        "a customer's audit found differences: run `windfall audit`"
                    );
                }
            }
            Err(_) => tracing::warn!(customer = id.0, "a customer's history is too long for the audit of a sample"),
        }
        queue::renew(app, job, None).await?;
    }
    Ok(End::Done)
}
