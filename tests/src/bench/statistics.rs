//! Medians, percentiles and shares of few numbers.

/// The middle of these values, or the mean of the two in the middle; `None` of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[middle - 1], upper))
}

/// How far the values lie apart: (largest - smallest) / median; `None` of none, or of a median of 0.
pub fn spread(values: &[f64]) -> Option<f64> {
    let middle = median(values)?;
    let largest = values.iter().copied().fold(f64::MIN, f64::max);
    let smallest = values.iter().copied().fold(f64::MAX, f64::min);
    quotient(largest - smallest, middle.abs())
}

/// `value / by`; `None` when `by` is 0.
pub fn quotient(value: f64, by: f64) -> Option<f64> {
    (by != 0.0).then(|| value / by)
}

/// The value that `part` (0 to 1) of all do not pass: the nearest rank. `None` of none.
pub fn percentile(values: &mut [u64], part: f64) -> Option<u64> {
    values.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank in a list that is far shorter than 2^52"
    )]
    let rank = (values.len() as f64 * part).ceil() as usize;
    let last = values.len().checked_sub(1)?;
    Some(values[rank.saturating_sub(1).min(last)])
}

/// A count as a number to reckon with; exact below 2^53.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a bench are far below 2^53"
)]
pub fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_median(values: &[f64], expected: Option<f64>) {
        assert_eq!(median(values), expected, "{values:?}");
    }

    #[test]
    fn a_median_is_the_middle_whatever_the_order() {
        check_median(&[], None);
        check_median(&[7.0], Some(7.0));
        check_median(&[9.0, 1.0, 2.0], Some(2.0));
        check_median(&[4.0, 1.0, 3.0, 100.0], Some(3.5));
    }

    #[test]
    fn one_outlier_does_not_move_a_median_but_widens_the_spread() {
        let values = [10.0, 10.0, 10.0, 10.0, 30.0];
        check_median(&values, Some(10.0));
        assert_eq!(spread(&values), Some(2.0));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[0.0]), None);
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let mut values: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(percentile(&mut values, 0.99), Some(99));
        assert_eq!(percentile(&mut values, 1.0), Some(100));
        assert_eq!(percentile(&mut values, 0.5), Some(50));
        assert_eq!(percentile(&mut values, 0.0), Some(1));
        assert_eq!(percentile(&mut [5], 0.99), Some(5));
        assert_eq!(percentile(&mut [], 0.99), None);
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        assert_eq!(quotient(3.0, 2.0), Some(1.5));
        assert_eq!(quotient(3.0, 0.0), None);
    }
}
