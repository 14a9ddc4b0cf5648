//! Logs to standard error; traces by OTLP if a collector is configured, such as Jaeger.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::boot::config::{Common, LogFormat};

/// Whether spans are exported. If not, their context is not propagated.
static TRACING: AtomicBool = AtomicBool::new(false);

/// Flushes spans when the process ends.
pub struct Telemetry(Option<SdkTracerProvider>);

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("SOUK_LOG: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("logging is set up twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Called once, within a tokio runtime.
pub fn init(config: &Common, name: &str) -> Result<Telemetry, TelemetryError> {
    let provider = config.otlp_endpoint.as_deref().map(|endpoint| export(endpoint, name)).transpose()?;
    TRACING.store(provider.is_some(), Ordering::Relaxed);
    let traces = provider.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("souk")));
    let lines =
        tracing_subscriber::fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(EnvFilter::try_new(&config.log)?).with(traces).with(lines).try_init()?;
    Ok(Telemetry(provider))
}

impl Telemetry {
    pub fn shutdown(self) {
        if let Some(Err(error)) = self.0.map(|provider| provider.shutdown()) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

fn export(endpoint: &str, name: &str) -> Result<SdkTracerProvider, opentelemetry_otlp::ExporterBuildError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let resource = Resource::builder().with_service_name(format!("souk-{name}")).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// Makes `span` a child of the span of the caller, or of the producer of an event.
pub fn adopt_parent(span: &Span, traceparent: Option<&str>) {
    if !TRACING.load(Ordering::Relaxed) {
        return;
    }
    if let Some(traceparent) = traceparent {
        let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
        // It fails if no layer records the span.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
    }
}

/// The current span, for a callee or a consumer.
pub fn traceparent() -> Option<String> {
    if !TRACING.load(Ordering::Relaxed) {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove("traceparent")
}
