//! The allocator of every program that is a dataplane: jemalloc, which gives memory back to the system after a peak.
//!
//! glibc's keeps what lies below anything still in use, so that a process that once held a hundred thousand sockets stays as large as it
//! was. How soon memory goes back is set where jemalloc is built (`.cargo/config.toml`). Without the feature `jemalloc` the system's
//! allocator is used, for platforms that jemalloc cannot be built on.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;
