//! The tables of a run, as `docs/performance.md` shows them.

use std::fmt::Write as _;

use super::figure::Figure;
use super::options::Options;
use super::peer::Peer;
use super::results::{Results, middle};
use super::statistics::spread;
use super::window::Window;

/// What stands where nothing was measured.
const NOTHING: &str = "-";

/// Everything there is to say of a run.
pub fn report(results: &Results, options: &Options) -> String {
    let mut text = String::new();
    let peers: Vec<Peer> = results.versions.iter().map(|(peer, _)| *peer).collect();
    for (peer, version) in &results.versions {
        let _ = writeln!(text, "{}: {version}", peer.title());
    }
    let _ = writeln!(
        text,
        "{} rounds of {} s after {} s; memory with {} and {} sockets\n",
        options.rounds,
        options.window().as_secs_f64(),
        options.warm_up().as_secs_f64(),
        options.sockets().0,
        options.sockets().1,
    );
    text += &figures(results, &peers);
    text.push('\n');
    text += &accounts(results);
    for (heading, lines) in [
        ("Notes", &results.notes),
        ("Skipped", &results.skipped),
        ("FAILED", &results.failures),
    ] {
        list(&mut text, heading, lines);
    }
    let objections = results.objections(options);
    if objections.is_empty() {
        text += "\nThis run counts.\n";
    } else {
        list(&mut text, "This run DOES NOT COUNT", &objections);
    }
    text
}

fn list(text: &mut String, heading: &str, lines: &[String]) {
    if !lines.is_empty() {
        let _ = writeln!(text, "\n{heading}:\n- {}", lines.join("\n- "));
    }
}

/// A row a figure: medians, ours on the scale of its line, the line, the verdict.
fn figures(results: &Results, peers: &[Peer]) -> String {
    let titles: Vec<&str> = peers.iter().map(|peer| peer.title()).collect();
    let mut text = format!(
        "| figure | {} | scaled | must | aim | |\n|---|{}---|---|---|---|\n",
        titles.join(" | "),
        "---|".repeat(peers.len())
    );
    for figure in Figure::ALL {
        let of_figure = |peer: &Peer| results.values.contains_key(&(figure, *peer));
        if !peers.iter().any(of_figure) {
            continue;
        }
        let cells: Vec<String> = peers
            .iter()
            .map(|peer| cell(results, figure, *peer))
            .collect();
        let line = figure.line();
        let scaled = results.scaled(figure);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            figure.title(),
            cells.join(" | "),
            scaled.map_or_else(|| NOTHING.to_owned(), |scaled| format!("{scaled:.2}")),
            line.must,
            line.aim,
            scaled.map_or(NOTHING, |scaled| line.judge(scaled).text()),
        );
    }
    text
}

/// A median, and how far the rounds lie apart.
fn cell(results: &Results, figure: Figure, peer: Peer) -> String {
    let Some(median) = results.median(figure, peer) else {
        return NOTHING.to_owned();
    };
    let values = results.values.get(&(figure, peer));
    let apart = values.filter(|values| values.len() > 1);
    let shown = rounded(median);
    match apart.and_then(|values| spread(values)) {
        Some(spread) => format!("{shown} ±{:.0} %", spread * 50.0),
        None => shown,
    }
}

/// Three digits, which is more than a bench can tell.
fn rounded(value: f64) -> String {
    let decimals = match value.abs() {
        small if small < 10.0 => 2,
        middle if middle < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// How busy everybody was: whether figures can be trusted.
fn accounts(results: &Results) -> String {
    let mut text = String::from(
        "| load, peer | proxy | client | client and backend | others |\n|---|---|---|---|---|\n",
    );
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    for ((load, peer), windows) in &results.windows {
        let _ = writeln!(
            text,
            "| {load:?}, {} | {} | {} | {} | {} |",
            peer.title(),
            percent(middle(windows, Window::proxy_share)),
            percent(middle(windows, Window::client_share)),
            percent(middle(windows, Window::load_share)),
            percent(middle(windows, Window::foreign_share)),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn shown() -> String {
        let mut results = Results::default();
        for (peer, values) in [
            (Peer::WsIngress, vec![9.0, 10.0, 11.0]),
            (Peer::Nginx, vec![12.5]),
            (Peer::Envoy, vec![200.0]),
        ] {
            results.versions.push((peer, "1.2.3".to_owned()));
            results.values.insert((Figure::RoundTrip, peer), values);
        }
        let key = (Figure::Storm, Peer::WsIngress);
        results.values.insert(key, vec![2.5]);
        results.skip("Caddy: not installed".to_owned());
        let options = Options::try_parse_from(["relay"]).unwrap();
        report(&results, &options)
    }

    #[track_caller]
    fn check_line(expected: &str) {
        let shown = shown();
        assert!(shown.lines().any(|line| line == expected), "{shown}");
    }

    #[test]
    fn a_row_has_medians_the_ratio_and_its_lines() {
        check_line("| figure | ws-ingress | nginx | Envoy | scaled | must | aim | |");
        check_line(
            "| 128 B round trip, 1 in flight, µs CPU | 10.0 ±10 % | 12.5 | 200 | 0.80 | 1 | 0.8 | aim met |",
        );
    }

    #[test]
    fn what_misses_its_line_is_marked() {
        check_line(
            "| p99 under handshakes / quiet p99 | 2.50 | - | - | 2.50 | 2 | 1.3 | **MISSED** |",
        );
    }

    #[test]
    fn a_run_says_what_it_lacks() {
        check_line("- Caddy: not installed");
        check_line("This run DOES NOT COUNT:");
    }
}
