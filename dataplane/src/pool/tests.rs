use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A connection that knows whether it is open.
#[derive(Debug, Clone)]
struct Played {
    number: usize,
    usable: Arc<AtomicBool>,
}

impl Reusable for Played {
    fn is_usable(&self) -> bool {
        self.usable.load(Ordering::SeqCst)
    }
}

const KEEP: Duration = Duration::from_secs(4);

fn played(number: usize) -> Played {
    let usable = Arc::new(AtomicBool::new(true));
    Played { number, usable }
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 80))
}

fn key(last: u8) -> Key {
    let address = address(last);
    Key {
        address,
        external: None,
    }
}

fn pool(per_endpoint: usize, in_all: usize) -> Pool<Played> {
    let limits = Limits {
        upstream_idle_per_endpoint: per_endpoint,
        upstream_idle_connections: in_all,
        ..Limits::default()
    };
    Pool::new(&limits, Arc::new(Metrics::new()))
}

fn put(pool: &Pool<Played>, last: u8, number: usize) -> Played {
    let connection = played(number);
    let home = pool.home(key(last)).expect("a ready endpoint");
    pool.put(connection.clone(), home, KEEP);
    connection
}

fn taken(pool: &Pool<Played>, last: u8) -> Option<usize> {
    pool.take(&key(last)).map(|(taken, _)| taken.number)
}

fn waiting(pool: &Pool<Played>) -> usize {
    let waiting = pool.lock();
    assert_eq!(
        waiting.count,
        waiting.idle.values().map(Vec::len).sum::<usize>()
    );
    waiting.count
}

#[tokio::test]
async fn the_one_that_was_used_last_comes_first_and_only_for_its_own_endpoint() {
    let pool = pool(4, 8);
    pool.follow([address(1), address(2)]);
    put(&pool, 1, 1);
    put(&pool, 1, 2);
    put(&pool, 2, 3);
    assert_eq!(taken(&pool, 1), Some(2));
    assert_eq!(taken(&pool, 1), Some(1));
    assert_eq!(taken(&pool, 1), None);
    assert_eq!(taken(&pool, 2), Some(3));
    assert_eq!(waiting(&pool), 0);
}

#[tokio::test]
async fn no_more_wait_than_the_limits_allow() {
    let pool = pool(2, 3);
    pool.follow([address(1), address(2)]);
    for number in 0..5 {
        put(&pool, 1, number);
    }
    assert_eq!(waiting(&pool), 2, "per endpoint");
    for number in 0..5 {
        put(&pool, 2, number);
    }
    assert_eq!(waiting(&pool), 3, "in all");
}

#[tokio::test(start_paused = true)]
async fn what_waited_too_long_is_not_used_and_is_closed_by_the_sweep() {
    let pool = pool(4, 8);
    pool.follow([address(1)]);
    put(&pool, 1, 1);
    tokio::time::advance(KEEP).await;
    assert_eq!(taken(&pool, 1), None);
    put(&pool, 1, 2);
    let sweeping = tokio::time::timeout(KEEP + SWEEP, pool.clone().sweep());
    assert!(sweeping.await.is_err(), "the sweep goes on for ever");
    assert_eq!(waiting(&pool), 0);
}

#[tokio::test]
async fn a_connection_that_ended_is_passed_over() {
    let pool = pool(4, 8);
    pool.follow([address(1)]);
    put(&pool, 1, 1);
    put(&pool, 1, 2).usable.store(false, Ordering::SeqCst);
    assert_eq!(taken(&pool, 1), Some(1));
}

#[tokio::test]
async fn an_endpoint_that_left_takes_its_connections_along_also_those_in_use() {
    let pool = pool(4, 8);
    pool.follow([address(1), address(2)]);
    put(&pool, 1, 1);
    put(&pool, 2, 2);
    put(&pool, 1, 3);
    let (in_use, home) = pool.take(&key(1)).expect("an idle one");
    pool.follow([address(2)]);
    assert_eq!(waiting(&pool), 1, "the idle one of the other endpoint");
    assert!(pool.home(key(1)).is_none());
    // The same address again is another pod: the connection of the old one does not come back.
    pool.follow([address(1), address(2)]);
    pool.put(in_use, home, KEEP);
    assert_eq!(taken(&pool, 1), None);
    assert_eq!(taken(&pool, 2), Some(2), "this one was never away");
}

#[tokio::test]
async fn a_closed_pool_keeps_nothing() {
    let pool = pool(4, 8);
    pool.follow([address(1)]);
    let home = pool.home(key(1)).expect("a ready endpoint");
    put(&pool, 1, 1);
    pool.close();
    assert_eq!(waiting(&pool), 0);
    pool.put(played(2), home, KEEP);
    assert_eq!(taken(&pool, 1), None);
}
