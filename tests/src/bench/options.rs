//! The command line of the bench.

use std::time::Duration;

use clap::{Parser, ValueEnum as _};

use super::figure::Load;
use super::peer::Peer;

/// A port of the client each; Linux has 28,232 of them for one address.
const MOST_SOCKETS: u32 = 25_000;

/// Measures ws-ingress and other proxies side by side. Nothing passes or fails; what misses its line is marked.
#[derive(Debug, Clone, Parser)]
#[command(name = "relay")]
pub struct Options {
    /// Which loads, separated by commas; all without it.
    #[arg(long, value_delimiter = ',', value_enum)]
    loads: Vec<Load>,

    /// Which proxies, separated by commas; all without it.
    #[arg(long, value_delimiter = ',', value_enum)]
    peers: Vec<Peer>,

    /// How often everything is measured; a figure is the median.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,

    /// Seconds that one load is measured for.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,

    /// Seconds that a load runs before it is measured.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warm_up: f64,

    /// How many sockets are open when memory is measured first, and then.
    #[arg(long, value_name = "FEW,MANY", default_value = "2000,9000", value_parser = few_and_many)]
    sockets: (u32, u32),

    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Seconds that make sense: more than a tick of the kernel's accounts, less than half an hour.
fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    (0.1..=1_800.0)
        .contains(&value)
        .then_some(value)
        .ok_or_else(|| "between 0.1 and 1800".to_owned())
}

/// Two numbers of sockets, the first below the second.
fn few_and_many(text: &str) -> Result<(u32, u32), String> {
    let sockets = text
        .split_once(',')
        .and_then(|(few, many)| Some((few.parse().ok()?, many.parse().ok()?)));
    sockets
        .filter(|(few, many)| 0 < *few && few < many && *many <= MOST_SOCKETS)
        .ok_or_else(|| format!("two numbers up to {MOST_SOCKETS}, such as 2000,9000"))
}

impl Options {
    pub fn loads(&self) -> Vec<Load> {
        picked(&self.loads, Load::value_variants())
    }

    pub fn peers(&self) -> Vec<Peer> {
        picked(&self.peers, Peer::value_variants())
    }

    pub fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }

    /// How many sockets memory is measured with: few, many.
    pub fn sockets(&self) -> (u32, u32) {
        self.sockets
    }
}

/// Those that were named, in the order of all; all when none was.
fn picked<T: Copy + PartialEq>(named: &[T], all: &[T]) -> Vec<T> {
    let wanted = |one: &&T| named.is_empty() || named.contains(*one);
    all.iter().filter(wanted).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(["relay"].iter().chain(arguments))
    }

    #[test]
    fn without_flags_everything_is_measured() {
        let options = parse(&["--bench"]).unwrap();
        assert_eq!(options.loads(), Load::value_variants());
        assert_eq!(options.peers(), Peer::value_variants());
        assert_eq!(options.sockets(), (2_000, 9_000));
    }

    #[test]
    fn what_is_named_is_taken_in_the_order_of_the_table() {
        let options = parse(&[
            "--loads",
            "storm,round-trip",
            "--peers",
            "envoy,nginx16k",
            "--sockets",
            "20,90",
            "--seconds",
            "0.5",
        ])
        .unwrap();
        assert_eq!(options.loads(), [Load::RoundTrip, Load::Storm]);
        assert_eq!(options.peers(), [Peer::Nginx16k, Peer::Envoy]);
        assert_eq!(options.sockets(), (20, 90));
        assert_eq!(options.window(), Duration::from_millis(500));
    }

    #[test]
    fn nonsense_is_refused() {
        for arguments in [
            ["--seconds", "0"],
            ["--seconds", "NaN"],
            ["--rounds", "0"],
            ["--sockets", "5"],
            ["--sockets", "9,9"],
            ["--sockets", "0,9"],
            ["--sockets", "9,90000"],
            ["--peers", "apache"],
        ] {
            assert!(parse(&arguments).is_err(), "{arguments:?}");
        }
    }
}
