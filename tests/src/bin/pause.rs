//! `pause`: keeps a pod's namespaces open until the container runtime kills it. The node of the tests has no other.

fn main() {
    loop {
        std::thread::park();
    }
}
