//! What goes out together: each write below is a packet, and wakes the client.

use super::*;
use crate::pieces::{Pieces, Steps};

/// As many as rustls gives where nobody asks for fewer.
const TICKETS: u32 = 2;

type Counted = Pieces<DuplexStream>;

async fn connect() -> (TlsSocket<Counted>, TlsStream<DuplexStream>) {
    let (near, far) = duplex(200_000);
    let near = Pieces::new(near, Steps::whole(), Steps::whole());
    pair::connect(&CONFIGS[0], near, far).await
}

#[test]
fn a_ticket_goes_out_with_the_first_answer() {
    run(async {
        let (mut server, mut client) = connect().await;
        assert_eq!(server.stream().writes(), 1, "the server's flight");
        server.flush().await.unwrap();
        server.write_all(b"hello").await.unwrap();
        assert_eq!(server.stream().writes(), 2, "ticket and data");
        let mut heard = [0; 5];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
        assert_eq!(client.get_ref().1.tls13_tickets_received(), TICKETS);
    });
}

#[test]
fn a_ticket_goes_out_with_the_end_if_there_is_no_answer() {
    run(async {
        let (mut server, mut client) = connect().await;
        server.shutdown().await.unwrap();
        assert_eq!(server.stream().writes(), 2, "ticket and end");
        assert!(read(&mut client, 10).await.is_empty());
        assert_eq!(client.get_ref().1.tls13_tickets_received(), TICKETS);
    });
}

#[test]
fn a_ticket_holds_no_alert_back() {
    run(async {
        let (mut server, mut client) = connect().await;
        let (below, _) = client.get_mut();
        // No record begins so.
        below.write_all(&[0; 5]).await.unwrap();
        server.read_u8().await.unwrap_err();
        let told = client.read_u8().await.unwrap_err();
        assert!(told.to_string().contains("fatal alert"), "{told}");
    });
}

#[test]
fn last_words_go_out_with_the_end() {
    run(async {
        let (mut server, mut client) = connect().await;
        let written = poll_fn(|context| server.poll_write_last(context, b"bye")).await;
        assert_eq!(written.unwrap(), 3);
        assert_eq!(server.stream().writes(), 2, "ticket, data and end");
        server.shutdown().await.unwrap();
        assert_eq!(server.stream().writes(), 2, "the end is said once");
        assert_eq!(read(&mut client, 10).await, b"bye");
    });
}

#[test]
fn last_words_may_be_long() {
    run(async {
        let (mut server, mut client) = connect().await;
        let said = pattern(2 * WRITE_BYTES, 3);
        let talking = async {
            let mut rest = &said[..];
            while !rest.is_empty() {
                let written = poll_fn(|context| server.poll_write_last(context, rest)).await;
                rest = &rest[written.unwrap()..];
            }
            server.shutdown().await.unwrap();
        };
        let (heard, ()) = join!(read(&mut client, 70_000), talking);
        assert!(heard == said);
    });
}
