//! Ctrl-C: the first asks the run to stop after its step, the second ends the program.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::{Code, Failure};

static STOP: AtomicBool = AtomicBool::new(false);

/// Installs the handler, once, and returns the flag that it sets.
pub(crate) fn install() -> Result<&'static AtomicBool, Failure> {
    static DONE: std::sync::OnceLock<Result<(), String>> = std::sync::OnceLock::new();
    DONE.get_or_init(|| {
        ctrlc::set_handler(|| {
            if STOP.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(Code::Interrupted as u8));
            }
            let _ =
                writeln!(std::io::stderr(), "\nstopping after this step; press Ctrl-C again to stop at once");
        })
        .map_err(|e| e.to_string())
    })
    .clone()
    .map_err(|e| Failure::usage(format!("cannot listen for Ctrl-C: {e}")))?;
    Ok(&STOP)
}
