//! What a serial driver counts about its line: framing and parity errors, lost bytes, breaks.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::{Getter, Opcode, ioctl};

/// `TIOCGICOUNT` of Linux, asm-generic/ioctls.h: x86, ARM, RISC-V and PowerPC have the same number.
const TIOCGICOUNT: Opcode = 0x545D;

/// `struct serial_icounter_struct` of linux/serial.h.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Counted {
    /// cts, dsr, rng, dcd, rx, tx.
    _modem_lines_and_bytes: [i32; 6],
    frame: i32,
    overrun: i32,
    parity: i32,
    brk: i32,
    buf_overrun: i32,
    _reserved: [i32; 9],
}

/// Errors of a line since its driver was loaded, or between two such readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LineErrors {
    /// Bytes without a stop bit.
    pub(super) framing: u64,
    /// Bytes with wrong parity.
    pub(super) parity: u64,
    /// Bytes that were lost in the hardware or in the driver.
    pub(super) overruns: u64,
    /// Breaks.
    pub(super) breaks: u64,
}

impl LineErrors {
    /// What the driver has counted. `None`: this kind of port counts nothing (a pseudo terminal, many USB adapters).
    pub(super) fn of(port: &impl AsRawFd) -> Option<Self> {
        #[expect(
            unsafe_code,
            reason = "there is no safe way to this counter: the libraries for serial ports leave it out, and an ioctl's \
                      meaning is known to the driver alone"
        )]
        // SAFETY: `port` owns its descriptor and outlives the borrow. TIOCGICOUNT writes one `serial_icounter_struct`,
        // whose layout `Counted` has (20 ints), and any bits are valid ints; an error writes nothing and is no output.
        let counted = unsafe {
            let descriptor = BorrowedFd::borrow_raw(port.as_raw_fd());
            ioctl(descriptor, Getter::<TIOCGICOUNT, Counted>::new())
        };
        counted.ok().map(Self::from)
    }

    /// What was added since `before`. A driver that was loaded again counts from 0.
    pub(super) const fn since(self, before: Self) -> Self {
        Self {
            framing: self.framing.saturating_sub(before.framing),
            parity: self.parity.saturating_sub(before.parity),
            overruns: self.overruns.saturating_sub(before.overruns),
            breaks: self.breaks.saturating_sub(before.breaks),
        }
    }
}

impl From<Counted> for LineErrors {
    fn from(counted: Counted) -> Self {
        // The kernel counts in u32 and hands over the same bits as int.
        let count = |bits: i32| u64::from(bits.cast_unsigned());
        Self {
            framing: count(counted.frame),
            parity: count(counted.parity),
            overruns: count(counted.overrun) + count(counted.buf_overrun),
            breaks: count(counted.brk),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const _: () = assert!(size_of::<Counted>() == 80);

    #[tokio::test]
    async fn a_port_that_counts_nothing_says_so() {
        let (pty, _other) = tokio_serial::SerialStream::pair().unwrap();
        assert_eq!(LineErrors::of(&pty), None);
    }

    #[test]
    fn errors_are_taken_from_the_places_of_the_kernels_struct() {
        let counted = Counted {
            _modem_lines_and_bytes: [99; 6],
            frame: 1,
            overrun: 2,
            parity: 3,
            brk: 4,
            buf_overrun: -1,
            _reserved: [0; 9],
        };
        let errors = LineErrors::from(counted);
        let overruns = 2 + u64::from(u32::MAX);
        assert_eq!(errors, LineErrors { framing: 1, parity: 3, overruns, breaks: 4 });
        assert_eq!(errors.since(LineErrors { framing: 9, parity: 1, ..errors }).parity, 2);
        assert_eq!(errors.since(LineErrors { framing: 9, ..errors }).framing, 0);
    }
}
