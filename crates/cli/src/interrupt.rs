//! Ctrl-C: the first asks the run to stop after its step, a later second one ends the program.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::exit::{Code, Failure};

static STOP: AtomicBool = AtomicBool::new(false);
static FIRST: OnceLock<Instant> = OnceLock::new();

/// Signals within this time are one: `timeout` signals the program, and then its process group with the program in it.
const ONE: Duration = Duration::from_secs(1);

/// Installs the handler, once, and returns the flag that it sets.
pub(crate) fn install() -> Result<&'static AtomicBool, Failure> {
    static DONE: OnceLock<Result<(), String>> = std::sync::OnceLock::new();
    DONE.get_or_init(|| {
        ctrlc::set_handler(|| {
            let first = *FIRST.get_or_init(Instant::now);
            if STOP.swap(true, Ordering::Relaxed) {
                if first.elapsed() < ONE {
                    return;
                }
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
