//! Reads the status address: a GET, and the Prometheus text as samples.

use std::net::SocketAddr;

use crate::raw::Connection;

/// All samples of one scrape.
#[derive(Debug)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug)]
struct Sample {
    name: String,
    /// The text between the braces; label values here never contain a comma or a quote.
    labels: String,
    /// Whole numbers are all that tests count; a fraction is cut off.
    value: u64,
}

impl Metrics {
    /// Reads the text of a scrape.
    pub fn parse(text: &str) -> Self {
        let samples = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                let labels = labels.trim_end_matches('}').to_owned();
                let whole = value.split('.').next()?;
                Some(Sample {
                    name: name.to_owned(),
                    labels,
                    value: whole.parse().ok()?,
                })
            });
        Self(samples.collect())
    }

    /// The sum of all series of `name` that carry these labels; 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let carries = |sample: &&Sample| {
            labels.iter().all(|(key, value)| {
                sample
                    .labels
                    .split(',')
                    .any(|pair| pair == format!("{key}=\"{value}\""))
            })
        };
        self.0
            .iter()
            .filter(|sample| sample.name == name)
            .filter(carries)
            .map(|sample| sample.value)
            .sum()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|sample| sample.name == name)
    }
}

/// `GET path`: status and body; `None` when the address does not answer.
pub async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut connection = Connection::plain(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: status\r\nConnection: close\r\n\r\n");
    connection.send(request).await.ok()?;
    let response = connection.response("GET").await.ok()?;
    Some((response.status, response.text()))
}

pub async fn scrape(address: SocketAddr) -> Option<Metrics> {
    let (status, text) = get(address, "/metrics").await?;
    (status == 200).then(|| Metrics::parse(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_the_labels_that_were_not_named() {
        let metrics = Metrics::parse(
            "# TYPE a counter\na_total{b=\"x\",c=\"1\"} 2\na_total{b=\"y\",c=\"1\"} 3\nd 7.5\n# EOF\n",
        );
        let sum = |name, labels| metrics.sum(name, labels);
        assert_eq!(sum("a_total", &[]), 5);
        assert_eq!(sum("a_total", &[("b", "x"), ("c", "1")]), 2);
        assert_eq!(sum("d", &[]), 7);
        assert_eq!(sum("e", &[]), 0);
        assert!(metrics.has("d") && !metrics.has("e"));
    }
}
