//! The push server in process: real TCP, TLS and gRPC on 127.0.0.1, and a scripted API server.

mod limits;
mod negatives;
mod scene;
mod secrecy;
mod streams;
