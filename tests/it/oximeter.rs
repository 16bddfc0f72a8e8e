//! An oximeter for tests: an emulated Nonin on a real pty, which goes on whoever reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vitalbridge::sources::simulator::oximeters::{NONIN_HZ, Nonin, Sensed};
use vitalbridge::sources::simulator::pty::EmulatedPort;

/// A running oximeter; its cable is pulled when it is dropped.
pub(crate) struct Oximeter {
    link: PathBuf,
    stop: Arc<AtomicBool>,
}

impl Oximeter {
    /// Plugs it in at `link`; its pulse rate and saturation wander a little. Must be called inside a runtime.
    pub(crate) fn start(link: PathBuf) -> Self {
        let mut port = EmulatedPort::new(link.clone());
        port.plug().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        #[expect(clippy::disallowed_methods, reason = "a test has no task list")]
        tokio::spawn(async move {
            let mut nonin = Nonin::new();
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / NONIN_HZ);
            for frame in 0_u16.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                ticks.tick().await;
                let slow = frame / 64;
                let sensed = Sensed {
                    on_finger: true,
                    pulse_rate: 60 + slow % 40,
                    spo2: 95 + u8::try_from(slow % 5).unwrap(),
                    wave: u8::try_from(frame % 64).unwrap(),
                    beat: frame % 64 == 0,
                };
                port.send(&nonin.frame(sensed));
            }
        });
        Self { link, stop }
    }

    /// Where readers find it.
    pub(crate) fn path(&self) -> &Path {
        &self.link
    }
}

impl Drop for Oximeter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
