//! Waiting with an end, without a timer where there is nothing to wait for.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

/// The future's result, or `None` when it takes longer than `limit`. A future that is ready at once, as a look-up in
/// memory is, costs no timer. It comes pinned, because to move it in here would copy all of it.
pub(crate) async fn within<T>(limit: Duration, mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let first = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
    match first {
        Poll::Ready(result) => Some(result),
        Poll::Pending => tokio::time::timeout(limit, future).await.ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_longer_is_given_up() {
        let limit = Duration::from_secs(1);
        assert_eq!(within(limit, pin!(async { 1 })).await, Some(1));
        assert_eq!(within(limit, pin!(tokio::time::sleep(limit / 2))).await, Some(()));
        assert_eq!(within(limit, pin!(tokio::time::sleep(limit * 2))).await, None);
    }
}
