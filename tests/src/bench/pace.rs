//! A clock that ticks at a fixed rate, whatever becomes of the work. tokio's timers have milliseconds, too coarse for a tail
//! of microseconds: this is a timerfd.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::ensure;
use rustix::io::{Errno, read};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::statistics::number;

/// Ticks per second, forever.
pub struct Pace {
    timer: AsyncFd<OwnedFd>,
    start: Instant,
    interval: Duration,
    ticks: u64,
}

impl Pace {
    /// The first tick is one interval from now.
    pub fn new(per_second: u32) -> anyhow::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let interval = Duration::from_secs(1) / per_second;
        let every = Timespec::try_from(interval)?;
        let setting = Itimerspec {
            it_interval: every,
            it_value: every,
        };
        // Before the timer begins: no tick may seem to come before it is due.
        let start = Instant::now();
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &setting)?;
        #[expect(
            deprecated,
            reason = "the new one is unsafe for the sake of types that lie about their descriptor; an OwnedFd cannot"
        )]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(Self {
            timer,
            start,
            interval,
            ticks: 0,
        })
    }

    /// Waits for the next tick, and returns the times at which those that are due were due, oldest first: more than one when the caller
    /// was late.
    pub async fn due(&mut self) -> anyhow::Result<impl Iterator<Item = Instant> + use<>> {
        let count = loop {
            let mut ready = self.timer.readable().await?;
            let mut bytes = [0; 8];
            match read(self.timer.get_ref(), &mut bytes) {
                Ok(read) => {
                    ensure!(read == bytes.len(), "a timer says 8 bytes");
                    break u64::from_ne_bytes(bytes);
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        };
        let (start, interval, first) = (self.start, self.interval, self.ticks + 1);
        self.ticks += count;
        Ok((first..first + count).map(move |tick| start + interval.mul_f64(number(tick))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_tick_is_lost_and_none_is_early() {
        let mut pace = Pace::new(8_000).unwrap();
        let mut ticks = Vec::new();
        while ticks.len() < 800 {
            let due: Vec<Instant> = pace.due().await.unwrap().collect();
            assert!(due.iter().all(|due| *due <= Instant::now()));
            ticks.extend(due);
        }
        let gaps = ticks.windows(2).map(|two| two[1] - two[0]);
        for gap in gaps {
            assert!(gap.abs_diff(Duration::from_micros(125)) < Duration::from_micros(1));
        }
    }
}
