//! Work that takes long and waits for nothing, beside the threads that renew the Lease and answer dataplanes.

use std::panic::resume_unwind;

use tokio::task::{JoinError, spawn_blocking};

/// Runs the work on a thread for work that blocks. Nothing when the runtime ends.
///
/// # Panics
/// When the work does.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    match spawn_blocking(work)
        .await
        .map_err(JoinError::try_into_panic)
    {
        Ok(done) => Some(done),
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_)) => None,
    }
}
