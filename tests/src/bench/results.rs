//! What a run came to, and whether it counts.

use std::collections::BTreeMap;

use super::figure::{Figure, Load, Scale};
use super::options::Options;
use super::peer::Peer;
use super::run::Measured;
use super::statistics::{median, quotient};
use super::window::Window;

/// One load on one peer in one round.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub load: Load,
    pub peer: Peer,
    pub round: u32,
}

/// Everything that was measured, by what and of whom.
#[derive(Default)]
pub struct Results {
    pub versions: Vec<(Peer, String)>,
    pub values: BTreeMap<(Figure, Peer), Vec<f64>>,
    pub windows: BTreeMap<(Load, Peer), Vec<Window>>,
    pub notes: Vec<String>,
    pub skipped: Vec<String>,
    pub failures: Vec<String>,
    /// What makes a figure of ours worthless.
    pub doubts: Vec<String>,
}

/// CPU in ms a GB of (figure, the better of the two nginx, Envoy) when the lines were drawn: what they are to each other tells whether
/// the bench does what it did then, on whatever machine.
const KNOWN: [(Figure, f64, f64); 3] = [
    (Figure::BulkUp, 1052.0, 720.0),
    (Figure::BulkDown, 940.0, 757.0),
    (Figure::BulkEcho, 990.0, 614.0),
];

/// How far nginx may be from [`KNOWN`].
const KNOWN_WITHIN: f64 = 0.15;

/// The client uses less than this of its CPU: one that has no time to spare measures itself.
const MOST_CLIENT_SHARE: f64 = 0.80;

/// Others use less than this of one CPU: the machine has to be quiet.
const MOST_FOREIGN_SHARE: f64 = 0.05;

/// How many of the worst are named.
const SHOWN: usize = 5;

/// A run with less than this is a trial.
const LEAST_ROUNDS: u32 = 3;
const LEAST_SECONDS: f64 = 2.0;

impl Results {
    pub fn skip(&mut self, what: String) {
        self.skipped.push(what);
    }

    pub fn add(&mut self, place: Place, measured: anyhow::Result<Measured>) {
        let Place { load, peer, round } = place;
        let name = format!("{load:?}, {}, round {}", peer.title(), round + 1);
        match measured {
            Ok(measured) => {
                for (figure, value) in measured.figures {
                    self.values.entry((figure, peer)).or_default().push(value);
                }
                if let Some(window) = measured.window {
                    self.windows.entry((load, peer)).or_default().push(window);
                }
                let note = measured.note.map(|note| format!("{name}: {note}"));
                self.notes.extend(note);
                let doubt = measured.doubt.filter(|_| peer == Peer::WsIngress);
                self.doubts
                    .extend(doubt.map(|doubt| format!("{name}: {doubt}")));
            }
            Err(error) => self.failures.push(format!("{name}: {error:#}")),
        }
    }

    /// The figure of a peer: the median of its rounds.
    pub fn median(&self, figure: Figure, peer: Peer) -> Option<f64> {
        median(self.values.get(&(figure, peer))?)
    }

    /// Our figure on the scale of its line.
    pub fn scaled(&self, figure: Figure) -> Option<f64> {
        let ours = self.median(figure, Peer::WsIngress)?;
        match figure.line().scale {
            Scale::Itself => Some(ours),
            Scale::Envoy => quotient(ours, self.median(figure, Peer::Envoy)?),
            Scale::Nginx => quotient(ours, self.better_nginx(figure)?),
        }
    }

    fn better_nginx(&self, figure: Figure) -> Option<f64> {
        [Peer::Nginx, Peer::Nginx16k]
            .into_iter()
            .filter_map(|nginx| self.median(figure, nginx))
            .min_by(f64::total_cmp)
    }

    /// Why the figures of this run are none to be published; nothing when it counts.
    pub fn objections(&self, options: &Options) -> Vec<String> {
        let mut objections = Vec::new();
        if options.rounds < LEAST_ROUNDS || options.window().as_secs_f64() < LEAST_SECONDS {
            objections.push(format!(
                "a trial: fewer than {LEAST_ROUNDS} rounds or less than {LEAST_SECONDS} s for a load"
            ));
        }
        objections.extend(KNOWN.iter().filter_map(|known| self.off_known(known)));
        for (what, share, most) in [
            (
                "the client used too much of its CPU",
                Window::client_share as fn(&Window) -> f64,
                MOST_CLIENT_SHARE,
            ),
            (
                "other processes used too much of a CPU",
                Window::foreign_share,
                MOST_FOREIGN_SHARE,
            ),
        ] {
            let share = |windows: &[Window]| middle(windows, share);
            let mut over: Vec<_> = self
                .windows
                .iter()
                .map(|(place, windows)| (share(windows), place))
                .filter(|(share, _)| *share >= most)
                .collect();
            over.sort_by(|one, other| other.0.total_cmp(&one.0));
            let worst = over.iter().take(SHOWN).map(|(share, (load, peer))| {
                format!("{load:?}, {} {:.0} %", peer.title(), share * 100.0)
            });
            let worst: Vec<String> = worst.collect();
            if !worst.is_empty() {
                let (count, all) = (over.len(), self.windows.len());
                objections.push(format!("{what} in {count} of {all}: {}", worst.join("; ")));
            }
        }
        objections.extend(self.doubts.iter().cloned());
        if !self.failures.is_empty() {
            objections.push("something failed, see above".to_owned());
        }
        objections
    }

    fn off_known(&self, (figure, nginx, envoy): &(Figure, f64, f64)) -> Option<String> {
        let title = figure.title();
        let both = self
            .better_nginx(*figure)
            .zip(self.median(*figure, Peer::Envoy));
        let Some(ratio) = both.and_then(|(nginx, envoy)| quotient(nginx, envoy)) else {
            return Some(format!(
                "{title}: without both nginx and Envoy nothing tells whether this bench is the known one"
            ));
        };
        let known = nginx / envoy;
        let off = ratio / known - 1.0;
        (off.abs() > KNOWN_WITHIN).then(|| {
            format!(
                "{title}: nginx / Envoy is {ratio:.2}, {:+.0} % off the known {known:.2}",
                off * 100.0
            )
        })
    }
}

/// The median of what each window says.
pub fn middle(windows: &[Window], value: impl Fn(&Window) -> f64) -> f64 {
    let values: Vec<f64> = windows.iter().map(value).collect();
    median(&values).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn results(values: &[(Figure, Peer, &[f64])]) -> Results {
        let values = values
            .iter()
            .map(|(figure, peer, values)| ((*figure, *peer), values.to_vec()));
        Results {
            values: values.collect(),
            ..Results::default()
        }
    }

    fn known() -> Results {
        results(&[
            (Figure::BulkUp, Peer::Nginx, &[4999.0]),
            (Figure::BulkUp, Peer::Nginx16k, &[2104.0]),
            (Figure::BulkUp, Peer::Envoy, &[1440.0]),
            (Figure::BulkDown, Peer::Nginx, &[4999.0]),
            (Figure::BulkDown, Peer::Nginx16k, &[940.0]),
            (Figure::BulkDown, Peer::Envoy, &[757.0]),
            (Figure::BulkEcho, Peer::Nginx, &[4999.0]),
            (Figure::BulkEcho, Peer::Nginx16k, &[990.0]),
            (Figure::BulkEcho, Peer::Envoy, &[614.0]),
        ])
    }

    fn options(more: &[&str]) -> Options {
        Options::try_parse_from(["relay"].iter().chain(more)).unwrap()
    }

    #[test]
    fn a_ratio_is_of_medians_to_the_better_nginx() {
        let all = results(&[
            (Figure::RoundTrip, Peer::WsIngress, &[8.0, 9.0, 100.0]),
            (Figure::RoundTrip, Peer::Nginx, &[20.0, 18.0, 1.0]),
            (Figure::RoundTrip, Peer::Nginx16k, &[12.0, 12.0, 12.0]),
            (Figure::RoundTrip, Peer::Envoy, &[1.0]),
        ]);
        assert_eq!(all.scaled(Figure::RoundTrip), Some(0.75));
        assert_eq!(all.scaled(Figure::Pipelined), None);
    }

    #[test]
    fn bulk_is_compared_with_envoy_and_memory_with_nothing() {
        let all = results(&[
            (Figure::BulkUp, Peer::WsIngress, &[500.0]),
            (Figure::BulkUp, Peer::Nginx, &[1.0]),
            (Figure::BulkUp, Peer::Envoy, &[1000.0]),
            (Figure::Kept, Peer::WsIngress, &[2.5]),
            (Figure::BulkDown, Peer::WsIngress, &[2.5]),
        ]);
        assert_eq!(all.scaled(Figure::BulkUp), Some(0.5));
        assert_eq!(all.scaled(Figure::Kept), Some(2.5));
        assert_eq!(all.scaled(Figure::BulkDown), None);
    }

    #[test]
    fn a_run_like_the_known_one_counts_whatever_the_machine() {
        assert_eq!(known().objections(&options(&[])), Vec::<String>::new());
    }

    #[track_caller]
    fn check_objection(results: &Results, more: &[&str], expected: &str) {
        let objections = results.objections(&options(more));
        assert_eq!(objections.len(), 1, "{objections:?}");
        assert!(objections[0].contains(expected), "{objections:?}");
    }

    #[test]
    fn an_nginx_that_is_off_makes_a_run_void() {
        let mut off = known();
        off.values
            .insert((Figure::BulkDown, Peer::Nginx16k), vec![790.0]);
        check_objection(&off, &[], "-16 % off the known 1.24");
        off.values
            .insert((Figure::BulkDown, Peer::Nginx16k), vec![802.0]);
        assert!(off.objections(&options(&[])).is_empty());
        off.values.remove(&(Figure::BulkDown, Peer::Envoy));
        check_objection(&off, &[], "without both");
    }

    #[test]
    fn a_busy_client_a_busy_machine_and_a_trial_are_void() {
        let quiet = Window {
            length: 1.0,
            proxy: 0.9,
            client: 0.5,
            backend: 0.2,
            others: 0.02,
            done: 1,
        };
        let mut all = known();
        let key = (Load::Handshake, Peer::Caddy);
        all.windows.insert(key, vec![quiet]);
        assert!(all.objections(&options(&[])).is_empty());
        check_objection(&all, &["--rounds", "1"], "a trial");
        check_objection(&all, &["--seconds", "1"], "a trial");
        let busy = Window {
            client: 0.8,
            ..quiet
        };
        all.windows.insert(key, vec![busy]);
        check_objection(&all, &[], "of its CPU in 1 of 1: Handshake, Caddy 80 %");
        let disturbed = Window {
            others: 0.06,
            ..quiet
        };
        all.windows.insert(key, vec![disturbed]);
        check_objection(&all, &[], "of a CPU in 1 of 1: Handshake, Caddy 6 %");
    }

    #[test]
    fn a_failure_is_named_and_makes_a_run_void() {
        let mut all = known();
        let place = Place {
            load: Load::Storm,
            peer: Peer::Haproxy,
            round: 0,
        };
        all.add(place, Err(anyhow::anyhow!("inner").context("outer")));
        assert_eq!(all.failures, ["Storm, HAProxy, round 1: outer: inner"]);
        check_objection(&all, &[], "something failed");
    }
}
