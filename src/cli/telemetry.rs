//! What a process reports about itself while it runs: log lines on standard error and, if it was built with the feature `otel`,
//! traces for a collector.

use std::io::{self, IsTerminal as _, Write, stderr};

use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::printable::Printable;
use crate::config;

/// Keeps traces going. Sends the spans that are still buffered when it is dropped.
pub(super) struct Telemetry {
    #[cfg(feature = "otel")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Telemetry {
    /// Starts to log what `filter` selects. Sends traces to `log.otlp_endpoint` if it is set; fails if it is set and this
    /// program was built without the feature `otel`.
    pub(super) fn start(filter: &str, config: &config::Log) -> anyhow::Result<Self> {
        check_build(config, cfg!(feature = "otel"))?;
        let styled = stderr().is_terminal();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || Lines { styled }).with_ansi(styled);
        // Only traces need spans. Without a collector, none is created.
        let lines = lines.with_filter(filter_fn(|metadata: &tracing::Metadata<'_>| metadata.is_event()));
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
            subscriber.init();
            Ok(Self {})
        }
    }
}

/// Fails if a collector is configured and the program was built without the feature `otel`.
fn check_build(config: &config::Log, sends_traces: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.otlp_endpoint.is_none() || sends_traces,
        "`log.otlp_endpoint` (WINDFALL__LOG__OTLP_ENDPOINT): this program was built without the feature `otel`"
    );
    Ok(())
}

/// Returns a provider that sends spans to the collector in batches, from a thread of its own. Also makes requests continue the
/// traces that their callers name in W3C headers.
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

/// Writes each event as one line, even if it quotes a text with line breaks or control characters.
struct Lines {
    /// Whether lines contain styles. These begin with the character ESC, which must pass. In quoted texts the library escapes ESC
    /// itself.
    styled: bool,
}

impl Write for Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        stderr().write_all(line(&String::from_utf8_lossy(event), self.styled).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

fn line(event: &str, styled: bool) -> String {
    const ESCAPE: char = '\u{1b}';
    let text = event.strip_suffix('\n').unwrap_or(event);
    let mut line = if styled {
        let parts: Vec<String> = text.split(ESCAPE).map(|part| Printable(part).to_string()).collect();
        parts.join(&ESCAPE.to_string())
    } else {
        Printable(text).to_string()
    };
    line.push('\n');
    line
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

#[cfg(test)]
mod tests {
    use super::{check_build, line};

    #[test]
    fn an_event_is_one_line() {
        let quoted = "\u{1b}[31mWARN\u{1b}[0m a\nb\u{202e}\n";
        assert_eq!(line(quoted, false), "\\u{1b}[31mWARN\\u{1b}[0m a\\nb\\u{202e}\n");
        assert_eq!(line(quoted, true), "\u{1b}[31mWARN\u{1b}[0m a\\nb\\u{202e}\n");
    }

    #[test]
    fn a_build_without_the_feature_refuses_a_collector() {
        let mut log = crate::config::Config::defaults().unwrap().log;
        assert!(check_build(&log, false).is_ok());
        log.otlp_endpoint = Some("http://127.0.0.1:4318/v1/traces".to_owned());
        assert!(check_build(&log, true).is_ok());
        let told = check_build(&log, false).unwrap_err().to_string();
        assert!(told.contains("WINDFALL__LOG__OTLP_ENDPOINT") && told.contains("`otel`"), "{told}");
    }
}
