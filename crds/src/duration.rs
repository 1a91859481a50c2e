//! Durations as Gateway API writes them (GEP-2257): `5s`, `1h30m`, `250ms`.
//!
//! In: text. Out: [`DurationString`], which keeps the text, so that an object is written back as its author wrote it. Only whole
//! numbers of `h`, `m`, `s` and `ms`; fractions, days and bare numbers are refused with a message that shows the form.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::definition::validations;

/// Most digits of one number, and most numbers in one duration (GEP-2257).
const MAX_DIGITS: usize = 5;
const MAX_PARTS: usize = 4;
/// Four parts of five digits and `ms`.
const MAX_BYTES: usize = MAX_PARTS * (MAX_DIGITS + 2);

/// A length of time, with the text it was written as.
#[derive(Clone, PartialEq, Eq)]
pub struct DurationString {
    text: Box<str>,
    value: Duration,
}

/// A text that is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a duration; write one to four whole numbers of at most five digits, each with its unit h, m, s or ms, such as 30s, 1h30m or 250ms"
)]
pub struct DurationError;

impl DurationString {
    /// A whole number of seconds; for defaults.
    pub(crate) fn from_secs(seconds: u16) -> Self {
        Self {
            text: format!("{seconds}s").into(),
            value: Duration::from_secs(seconds.into()),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn duration(&self) -> Duration {
        self.value
    }
}

impl FromStr for DurationString {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let mut value = Duration::ZERO;
        let mut rest = text;
        let mut parts = 0;
        while !rest.is_empty() {
            let (part, after) = first_part(rest)?;
            value += part;
            rest = after;
            parts += 1;
        }
        if parts == 0 || parts > MAX_PARTS {
            return Err(DurationError);
        }
        Ok(Self {
            text: text.into(),
            value,
        })
    }
}

/// Cuts the first number and its unit off.
fn first_part(text: &str) -> Result<(Duration, &str), DurationError> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or(DurationError)?;
    let (number, rest) = text.split_at(end);
    if number.len() > MAX_DIGITS {
        return Err(DurationError);
    }
    let number = number.parse::<u64>().map_err(|_| DurationError)?;
    // `ms` before `m`, which it begins with.
    if let Some(rest) = rest.strip_prefix("ms") {
        return Ok((Duration::from_millis(number), rest));
    }
    let mut letters = rest.chars();
    let seconds = match letters.next() {
        Some('h') => 3600,
        Some('m') => 60,
        Some('s') => 1,
        _ => return Err(DurationError),
    };
    Ok((Duration::from_secs(number * seconds), letters.as_str()))
}

impl fmt::Display for DurationString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for DurationString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for DurationString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for DurationString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        // {:?}: the text is a stranger's and may hold line ends.
        text.parse()
            .map_err(|error| de::Error::custom(format_args!("{text:?} is {error}")))
    }
}

impl JsonSchema for DurationString {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": MAX_BYTES,
            "x-kubernetes-validations": duration_rules(),
        })
    }
}

fn duration_rules() -> serde_json::Value {
    validations(&[(
        "self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')",
        "must be a duration of one to four whole numbers, each with its unit h, m, s or ms, such as 30s, 1h30m or 250ms",
    )])
}

/// The schema of a duration that may not be zero, for waits that must end.
pub(crate) fn nonzero(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = DurationString::json_schema(generator);
    let nonzero = validations(&[(
        // A digit other than 0 anywhere; cheaper than to convert, and right for text that the first rule refuses too.
        "self.matches('[1-9]')",
        "must be more than 0s: this wait cannot be switched off; write how long it may last, such as 5s",
    )]);
    let both = [duration_rules(), nonzero];
    let both = both
        .into_iter()
        .filter_map(|rules| match rules {
            serde_json::Value::Array(rules) => Some(rules),
            _ => None,
        })
        .flatten()
        .collect::<Vec<_>>();
    schema.insert("x-kubernetes-validations".into(), both.into());
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        let parsed = text.parse::<DurationString>();
        let millis = parsed
            .ok()
            .map(|parsed| u64::try_from(parsed.duration().as_millis()).unwrap());
        assert_eq!(millis, expected, "{text:?}");
    }

    #[test]
    fn reads_whole_numbers_with_units() {
        check("5s", Some(5_000));
        check("0s", Some(0));
        check("250ms", Some(250));
        check("1h30m", Some(5_400_000));
        check("1h2m3s4ms", Some(3_723_004));
        check("99999h", Some(359_996_400_000));
    }

    #[test]
    fn refuses_what_gep_2257_does_not_allow() {
        for text in [
            "",
            "5",
            "s",
            "1.5s",
            "-5s",
            " 5s",
            "5 s",
            "1d",
            "5S",
            "100000s",
            "1h1m1s1ms1ms",
            "5sx",
            "５s",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn is_written_back_as_it_was_read() {
        let read = serde_json::from_str::<DurationString>("\"90m\"").unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), "\"90m\"");
    }

    #[test]
    fn error_shows_the_text_and_the_form() {
        let error = serde_json::from_str::<DurationString>("\"1 day\"").unwrap_err();
        assert!(error.to_string().contains("\"1 day\" is not a duration"));
        assert!(error.to_string().contains("such as 30s"));
    }
}
