//! Waiting for a condition, with a deadline.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `look` answers `Ok`; its last error is the message of the panic at the deadline.
///
/// # Panics
/// At the deadline.
pub async fn until<T, E: Display, F: Future<Output = Result<T, E>>>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let failure = match tokio::time::timeout(left.max(PAUSE), look()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => "no answer to the last look".to_owned(),
        };
        assert!(Instant::now() < end, "not within {deadline:?}: {what}; last: {failure}");
        tokio::time::sleep(PAUSE).await;
    }
}
