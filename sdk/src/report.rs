//! Sends log lines and the message of a panic to the node.

use crate::host;

/// Sends the lines of the `log` crate to the node.
struct Logger;

impl log::Log for Logger {
    /// Enables all lines, because the node decides which to keep.
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // The ABI uses the level numbers of the `log` crate.
        let level = record.level() as i32;
        match record.args().as_str() {
            Some(message) => host::log(level, message),
            None => host::log(level, &record.args().to_string()),
        }
    }

    fn flush(&self) {}
}

/// Sets the logger and the panic hook. Called once per instance.
///
/// A native test keeps its own logger and panic hook.
pub(crate) fn install() {
    if cfg!(target_arch = "wasm32") && log::set_logger(&Logger).is_ok() {
        log::set_max_level(log::LevelFilter::Trace);
        // The guest traps right after the hook, so this is the last chance to report the message.
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or("no message");
            match panic.location() {
                Some(location) => host::fail(&format!("panicked at {location}: {message}")),
                None => host::fail(message),
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use log::Log as _;
    use pcluster_abi::Level;

    use super::*;

    #[test]
    fn lines_arrive_with_the_levels_of_the_contract() {
        for (level, number) in log::Level::iter().zip(Level::ALL) {
            Logger.log(&log::Record::builder().level(level).args(format_args!("at {number:?}")).build());
            assert_eq!(host::recorded().lines, [(number as i32, format!("at {number:?}"))]);
            assert_eq!(level.as_str().to_lowercase(), number.name());
        }
    }
}
