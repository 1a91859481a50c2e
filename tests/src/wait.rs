//! Waits with a name and a limit. A test never sleeps to give the product time: it asks again until the condition
//! holds, and says what it was waiting for when it does not come true.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Longest wait for anything that should take effect "soon". The issue allows changes 1 s; two cores that also compile
/// need more.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Time between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(20);

/// Asks `probe` again and again until it answers `Some`; panics with `what` after [`LIMIT`].
pub async fn until<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    until_limit(what, LIMIT, probe).await
}

/// [`until`] with its own limit.
pub async fn until_limit<T>(
    what: &str,
    limit: Duration,
    probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    until_every(INTERVAL, what, limit, probe).await
}

/// [`until_limit`] with this time between two looks, where a look is not cheap.
pub async fn until_every<T>(
    interval: Duration,
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        // A probe that hangs must not outlive the limit either.
        if let Ok(Some(found)) = timeout(limit, probe()).await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        sleep(interval).await;
    }
}

/// The result of `future`; panics with `what` when it takes longer than [`LIMIT`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = timeout(LIMIT, future).await else {
        panic!("not within {LIMIT:?}: {what}")
    };
    value
}
