//! The process's log: format, filter and destination. What is logged is said where it happens.

use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::{Error, Result};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: time, level, module, message and fields.
    Text,
    /// One JSON object per line; the event's fields beside `timestamp`, `level`, `target` and `message`.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// How a line looks.
    pub format: LogFormat,
    /// A level (`info`), or levels by module (`info,frazil::kafka=debug`), in the syntax of tracing's `EnvFilter`.
    pub level: String,
    /// ANSI colours; only text has them.
    pub color: bool,
}

/// Sends this process's log to standard error, with times in RFC 3339 UTC. Records of the `log` crate come along.
///
/// # Errors
/// `InvalidConfig` where the filter cannot be read; `Bug` where the log was set up before.
pub fn init(options: &LogOptions) -> Result<()> {
    dispatch(options, std::io::stderr)?
        .try_init()
        .map_err(|e| Error::bug("set up the log a second time").with_source(e))
}

fn dispatch<W>(options: &LogOptions, writer: W) -> Result<Dispatch>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = fmt::fmt().with_env_filter(filter(&options.level)?).with_writer(writer);
    Ok(match options.format {
        LogFormat::Text => builder.with_ansi(options.color).into(),
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).into(),
    })
}

/// Libraries that log each query or request, which may hold a record's values, and that are asked for by name only.
const QUIET: &str = "lance=error,rmcp=warn";
/// The wrapper of librdkafka takes it for an error that a consumer is closed before it is dropped. What matters of Kafka is
/// said by `frazil` and `librdkafka`.
const NO_ERROR: &str = "rdkafka=off";

/// `EnvFilter` takes a word that is no level for the name of a module, so that `inof` would silence everything else
/// without a word; such a module has to be written with its level here.
fn filter(text: &str) -> Result<EnvFilter> {
    let refuse = |what: &str| Error::invalid_config(format!("log level `{text}` cannot be read: {what}"));
    for part in text.split(',') {
        let is_level = !part.is_empty() && part.parse::<LevelFilter>().is_ok();
        if !is_level && !part.contains(['=', '[', ']', '{', '}']) {
            return Err(refuse(&format!(
                "`{part}` is none of off, error, warn, info, debug, trace; the level of a module is written `module=level`"
            )));
        }
    }
    let is_chatty = text.split(',').any(|part| matches!(part, "info" | "debug" | "trace"));
    let text = if is_chatty { format!("{NO_ERROR},{QUIET},{text}") } else { format!("{NO_ERROR},{text}") };
    EnvFilter::try_new(text).map_err(|e| refuse("a part of it is malformed").with_source(e))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::error::ErrorKind;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let options = LogOptions { format, level: level.to_owned(), color: false };
        let dispatch = dispatch(&options, move || writer.clone()).unwrap();
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info!(table = "shop.orders", rows = 3, "committed");
            tracing::debug!("not at this level");
            tracing::info!(target: "rmcp::service", "each request");
        });
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_is_one_flat_object_per_line() {
        let text = logged(LogFormat::Json, "info");
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["message"], &line["table"], &line["rows"]),
            (&"committed".into(), &"shop.orders".into(), &3.into())
        );
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z'), "{time}");
        chrono::DateTime::parse_from_rfc3339(time).unwrap();
    }

    #[test]
    fn text_has_level_message_and_fields() {
        let text = logged(LogFormat::Text, "off,frazil=info");
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in [" INFO ", "committed", "table=\"shop.orders\"", "rows=3"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_library_that_logs_each_request_is_asked_for_by_name() {
        for (level, is_there) in [("info", false), ("trace", false), ("info,rmcp=info", true)] {
            assert_eq!(logged(LogFormat::Text, level).contains("each request"), is_there, "{level}");
        }
    }

    #[test]
    fn a_filter_that_cannot_be_meant_is_refused() {
        for level in ["inof", "", "info,frazil", "frazil=loud", "info,"] {
            assert_eq!(filter(level).map(|_| ()).unwrap_err().kind(), ErrorKind::InvalidConfig, "{level}");
        }
        for level in ["info", "WARN", "info,frazil::kafka=debug", "off,frazil=trace", "[commit{table}]=debug"] {
            assert!(filter(level).is_ok(), "{level}");
        }
    }
}
