//! What a process tells of itself while it runs: log lines on the standard error and, where it was built with the feature
//! `otel`, traces to a collector.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config;

/// Tells what is left to tell when it is dropped.
pub(super) struct Telemetry {
    #[cfg(feature = "otel")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Telemetry {
    /// From now on. `filter`: what is told.
    pub(super) fn start(filter: &str, config: &config::Log) -> anyhow::Result<Self> {
        let lines = tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
        let subscriber = tracing_subscriber::registry().with(EnvFilter::new(filter)).with(lines);
        #[cfg(feature = "otel")]
        {
            use opentelemetry::trace::TracerProvider as _;
            let provider = config.otlp_endpoint.as_deref().map(collector).transpose()?;
            let tracer = provider.as_ref().map(|provider| provider.tracer("windfall"));
            let traces = tracer.map(|tracer| tracing_opentelemetry::layer().with_tracer(tracer));
            subscriber.with(traces).init();
            Ok(Self { provider })
        }
        #[cfg(not(feature = "otel"))]
        {
            if config.otlp_endpoint.is_some() {
                anyhow::bail!(
                    "`log.otlp_endpoint` (WINDFALL__LOG__OTLP_ENDPOINT): this program was built without the feature `otel`"
                );
            }
            subscriber.init();
            Ok(Self {})
        }
    }
}

/// Sends spans to this collector, a batch at a time, from a thread of its own; takes on what callers say of their traces.
#[cfg(feature = "otel")]
fn collector(endpoint: &str) -> anyhow::Result<opentelemetry_sdk::trace::SdkTracerProvider> {
    use anyhow::Context as _;
    use opentelemetry_otlp::WithExportConfig as _;
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().with_endpoint(endpoint).build();
    let exporter = exporter.context("`log.otlp_endpoint` (WINDFALL__LOG__OTLP_ENDPOINT)")?;
    let resource = Resource::builder().with_service_name("windfall").build();
    Ok(opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        #[cfg(feature = "otel")]
        if let Some(provider) = &self.provider
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(error = %error, "the last spans could not be sent");
        }
    }
}
