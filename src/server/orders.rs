//! Orders to one session: the newest that it has not heard yet. A `watch` channel is ten times as large, and each
//! connection has one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The newest order of its kind.
#[derive(Debug)]
pub struct Orders<T> {
    newest: Mutex<Option<T>>,
    came: Notify,
}

impl<T> Default for Orders<T> {
    fn default() -> Self {
        Self { newest: Mutex::new(None), came: Notify::new() }
    }
}

impl<T: Copy> Orders<T> {
    /// Gives an order, in the place of one that was not heard yet.
    pub fn give(&self, order: T) {
        *self.lock() = Some(order);
        self.came.notify_one();
    }

    /// The next order, once. For one session only.
    pub async fn next(&self) -> T {
        loop {
            let order = self.lock().take();
            match order {
                Some(order) => return order,
                None => self.came.notified().await,
            }
        }
    }

    /// The order that was not heard yet.
    #[cfg(test)]
    pub fn unheard(&self) -> Option<T> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_is_heard_once_and_a_newer_one_takes_the_place_of_one_unheard() {
        let orders = Orders::default();
        orders.give(1);
        orders.give(2);
        assert_eq!(orders.next().await, 2);
        assert_eq!(orders.unheard(), None);
        let (heard, ()) = tokio::join!(orders.next(), async {
            tokio::task::yield_now().await;
            orders.give(3);
        });
        assert_eq!(heard, 3);
    }
}
