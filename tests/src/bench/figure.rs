//! What is measured: the loads that a peer gets, the figures that come of each, and the line that each figure has to reach.

use clap::ValueEnum;

/// A load that is put on one peer at a time. Some give several figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Load {
    /// 128 B round trips over 64 sockets, one in flight on each.
    RoundTrip,
    /// The same with 16 in flight on each.
    Pipelined,
    /// 4 KiB round trips over 64 sockets, one in flight on each.
    FourKib,
    /// 8,000 messages/s of 128 B over 200 sockets, whether answers come or not.
    OpenLoop,
    /// Messages of 1 MiB to the backend.
    BulkUp,
    /// Messages of 1 MiB from the backend.
    BulkDown,
    /// Messages of 1 MiB and their echoes.
    BulkEcho,
    /// TLS handshake, upgrade, one echo, close.
    Handshake,
    /// The same with a ticket of the connection before.
    Resumed,
    /// Thousands of sockets: open, idle, one message on each, all closed.
    Memory,
    /// The open loop alone, then while 1,000 handshakes/s arrive.
    Storm,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Figure {
    RoundTrip,
    Pipelined,
    FourKib,
    OpenLoop,
    BulkUp,
    BulkDown,
    BulkEcho,
    Handshake,
    Resumed,
    IdleFew,
    IdleMany,
    AfterMessage,
    Kept,
    Storm,
}

impl Figure {
    /// In the order of the table.
    pub const ALL: [Self; 14] = [
        Self::RoundTrip,
        Self::Pipelined,
        Self::FourKib,
        Self::OpenLoop,
        Self::BulkUp,
        Self::BulkDown,
        Self::BulkEcho,
        Self::Handshake,
        Self::Resumed,
        Self::IdleFew,
        Self::IdleMany,
        Self::AfterMessage,
        Self::Kept,
        Self::Storm,
    ];

    /// What its row is called, with the unit of its cells.
    pub fn title(self) -> &'static str {
        match self {
            Self::RoundTrip => "128 B round trip, 1 in flight, µs CPU",
            Self::Pipelined => "128 B round trip, 16 in flight, µs CPU",
            Self::FourKib => "4 KiB round trip, µs CPU",
            Self::OpenLoop => "open loop, 8,000/s over 200 sockets, µs CPU a message",
            Self::BulkUp => "bulk up, ms CPU a GB",
            Self::BulkDown => "bulk down, ms CPU a GB",
            Self::BulkEcho => "1 MiB echo, ms CPU a GB",
            Self::Handshake => "handshake, upgrade, echo, close, µs CPU",
            Self::Resumed => "the same resumed, µs CPU",
            Self::IdleFew => "PSS an idle socket, few, kB",
            Self::IdleMany => "PSS an idle socket, many, kB",
            Self::AfterMessage => "PSS after 16 KiB on each, kB",
            Self::Kept => "PSS kept a socket after all closed, kB",
            Self::Storm => "p99 under handshakes / quiet p99",
        }
    }

    /// What ours has to reach.
    pub fn line(self) -> Line {
        let (scale, must, aim) = match self {
            Self::RoundTrip => (Scale::Nginx, 1.0, 0.80),
            Self::Pipelined => (Scale::Nginx, 0.90, 0.70),
            Self::FourKib => (Scale::Nginx, 0.90, 0.80),
            Self::OpenLoop => (Scale::Nginx, 1.0, 0.85),
            Self::BulkUp => (Scale::Envoy, 1.0, 0.85),
            Self::BulkDown => (Scale::Envoy, 1.0, 0.65),
            Self::BulkEcho => (Scale::Envoy, 1.0, 0.60),
            Self::Handshake | Self::Resumed => (Scale::Nginx, 0.60, 0.48),
            Self::IdleFew | Self::IdleMany | Self::AfterMessage => (Scale::Itself, 6.5, 4.9),
            Self::Kept => (Scale::Itself, 2.3, 1.0),
            Self::Storm => (Scale::Itself, 2.0, 1.3),
        };
        Line { scale, must, aim }
    }
}

/// What a figure of ours is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The better of the two nginx: the line is a ratio.
    Nginx,
    /// Envoy: the line is a ratio.
    Envoy,
    /// Nothing: the line is in the unit of the figure.
    Itself,
}

/// What a figure of ours may not pass, and what is hoped for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    pub scale: Scale,
    pub must: f64,
    pub aim: f64,
}

/// Where a figure lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    AimMet,
    Met,
    Missed,
}

impl Line {
    /// Judges a figure that was put on the scale of this line; what lies on a line has reached it.
    pub fn judge(self, scaled: f64) -> Verdict {
        if scaled <= self.aim {
            Verdict::AimMet
        } else if scaled <= self.must {
            Verdict::Met
        } else {
            Verdict::Missed
        }
    }
}

impl Verdict {
    pub fn text(self) -> &'static str {
        match self {
            Self::AimMet => "aim met",
            Self::Met => "met",
            Self::Missed => "**MISSED**",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_a_line_has_reached_it() {
        let line = Figure::Pipelined.line();
        assert_eq!(line.judge(0.70), Verdict::AimMet);
        assert_eq!(line.judge(0.71), Verdict::Met);
        assert_eq!(line.judge(0.90), Verdict::Met);
        assert_eq!(line.judge(0.901), Verdict::Missed);
        assert_eq!(line.judge(f64::NAN), Verdict::Missed);
    }

    #[test]
    fn no_aim_is_easier_than_its_must() {
        for figure in Figure::ALL {
            let line = figure.line();
            assert!(line.aim < line.must, "{figure:?}");
        }
    }
}
