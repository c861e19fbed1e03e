//! Ctrl-C: it ends what is being written, and the program where nothing is, or where it is pressed again.

use std::sync::atomic::{AtomicBool, Ordering};

/// As shells have it: 128 and the signal's number.
const EXIT_CODE: i32 = 130;

/// Whether something runs that can be ended, and whether Ctrl-C was pressed since it began.
static WORKING: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Something that Ctrl-C ends, for as long as it lives.
pub(super) struct Interruptible(());

impl Interruptible {
    /// Begins it.
    pub(super) fn begin() -> Interruptible {
        INTERRUPTED.store(false, Ordering::Relaxed);
        WORKING.store(true, Ordering::Relaxed);
        Interruptible(())
    }

    /// Set by Ctrl-C.
    pub(super) fn flag(&self) -> &'static AtomicBool {
        &INTERRUPTED
    }
}

impl Drop for Interruptible {
    fn drop(&mut self) {
        WORKING.store(false, Ordering::Relaxed);
    }
}

/// From here on Ctrl-C is heard.
pub(super) fn listen() {
    let handler = || {
        if !WORKING.load(Ordering::Relaxed) || INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT_CODE);
        }
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        log::warn!("Ctrl-C ends the program and not just an answer: {error}");
    }
}

/// Ends the program as Ctrl-C does.
pub(super) fn exit() -> ! {
    std::process::exit(EXIT_CODE)
}
