//! What a client may send once it is connected, and what it may not.

use rustls::{AlertDescription, ContentType};

use super::forged::{Forged, connect_tls12};
use super::*;

/// Most plain bytes of one record (RFC 8446 §5.1).
const MAX_PLAIN: usize = 1 << 14;
/// What rustls lets pass of each kind of record that brings nothing.
const PATIENCE: usize = 32;

#[test]
fn keys_of_the_client_change_in_the_middle_of_its_data() {
    run(async {
        let mut forged = Forged::connect().await;
        let mut sent = Vec::new();
        for (requested, text) in [(false, "two"), (true, "three"), (true, "four")] {
            sent.extend(forged.forger.data(b"data "));
            sent.extend(forged.forger.key_update(requested));
            sent.extend(forged.forger.data(text.as_bytes()));
        }
        forged.send(&sent).await;
        let expected = b"data twodata threedata four";
        assert_eq!(forged.hear(expected.len()).await, expected);
        // Both requests are answered by one change, which comes before the data under the new key.
        forged.answer(b"answer").await;
        assert_eq!(forged.client.read().await, b"answer");
        forged.answer(b"again").await;
        assert_eq!(forged.client.read().await, b"again");
    });
}

#[test]
fn an_end_follows_a_change_of_keys_under_the_new_ones() {
    run(async {
        let mut forged = Forged::connect().await;
        let sent = [
            forged.forger.data(b"last"),
            forged.forger.key_update(true),
            forged.forger.alert(1, 0),
        ];
        forged.send(&sent.concat()).await;
        let mut heard = Vec::new();
        forged.server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last");
        // Nothing was written that the answer to the request could have gone before.
        forged.server.shutdown().await.unwrap();
        assert_eq!(forged.alert().await, None);
        assert!(
            forged
                .client
                .tls
                .reader()
                .read(&mut [0])
                .is_ok_and(|read| read == 0)
        );
    });
}

#[test]
fn records_are_whole_wherever_their_stream_is_cut() {
    run(async {
        let mut forged = Forged::connect().await;
        let mut cut = 0;
        loop {
            let sent = [
                forged.forger.data(b"one"),
                forged.forger.data(b""),
                forged.forger.key_update(cut % 2 == 0),
                forged.forger.data(b"two"),
                forged.forger.data(b"three"),
            ];
            let sent = sent.concat();
            if cut > sent.len() {
                return;
            }
            let (first, second) = sent.split_at(cut);
            forged.send(first).await;
            // It has looked at all of the first part and waits for more.
            let mut heard = vec![0; 11];
            let mut read = 0;
            poll_fn(|context| {
                loop {
                    let mut buffer = ReadBuf::new(&mut heard[read..]);
                    match Pin::new(&mut forged.server).poll_read(context, &mut buffer) {
                        Poll::Ready(result) if read < 11 => {
                            result.unwrap();
                            read += buffer.filled().len();
                        }
                        Poll::Ready(_) | Poll::Pending => return Poll::Ready(()),
                    }
                }
            })
            .await;
            forged.send(second).await;
            forged.server.read_exact(&mut heard[read..]).await.unwrap();
            assert_eq!(heard, b"onetwothree", "cut at {cut}");
            forged.answer(b"answer").await;
            assert_eq!(forged.client.read().await, b"answer", "cut at {cut}");
            cut += 1;
        }
    });
}

#[test]
fn records_may_be_full_and_not_fuller() {
    run(async {
        let mut forged = Forged::connect().await;
        let full = pattern(MAX_PLAIN, 5);
        let sent = forged.forger.data(&full);
        forged.send(&sent).await;
        assert!(forged.hear(MAX_PLAIN).await == full);

        let sent = [
            forged.forger.data(b"last"),
            forged.forger.data(&pattern(MAX_PLAIN + 1, 5)),
        ];
        forged.send(&sent.concat()).await;
        assert_eq!(forged.refusal(b"last").await, io::ErrorKind::InvalidData);
        assert_eq!(forged.alert().await, Some(AlertDescription::RecordOverflow));

        // A length that cannot be right is not waited for.
        let mut forged = Forged::connect().await;
        forged.send(&[23, 3, 3, 0x48, 0x01]).await;
        assert_eq!(forged.refusal(b"").await, io::ErrorKind::InvalidData);
        assert!(forged.alert().await.is_some());
    });
}

#[test]
fn empty_records_are_taken_while_they_are_few() {
    run(async {
        let mut forged = Forged::connect().await;
        let mut sent = Vec::new();
        for _ in 0..3 {
            for _ in 0..PATIENCE {
                sent.extend(forged.forger.data(b""));
            }
            sent.extend(forged.forger.data(b"data"));
        }
        forged.send(&sent).await;
        assert_eq!(forged.hear(12).await, b"datadatadata");
        let mut sent = Vec::new();
        for _ in 0..1000 {
            sent.extend(forged.forger.data(b""));
        }
        forged.send(&sent).await;
        assert_eq!(forged.refusal(b"").await, io::ErrorKind::InvalidData);

        let (mut server, mut client, mut tls12) = connect_tls12().await;
        let mut sent = Vec::new();
        for _ in 0..1000 {
            sent.extend(tls12.data(b""));
        }
        client.write_all(&sent).await.unwrap();
        let error = server.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    });
}

#[test]
fn changes_of_keys_are_taken_while_they_are_few() {
    run(async {
        let mut forged = Forged::connect().await;
        for round in 0..3 {
            let mut sent = Vec::new();
            for _ in 0..PATIENCE {
                sent.extend(forged.forger.key_update(round != 1));
            }
            sent.extend(forged.forger.data(b"data"));
            forged.send(&sent).await;
            assert_eq!(forged.hear(4).await, b"data");
            // However many asked, one change is all that waits to be sent.
            forged.answer(b"answer").await;
            assert_eq!(forged.client.read().await, b"answer");
        }
        let mut sent = Vec::new();
        for _ in 0..1000 {
            sent.extend(forged.forger.key_update(true));
        }
        forged.send(&sent).await;
        assert_eq!(forged.refusal(b"").await, io::ErrorKind::InvalidData);
    });
}

#[test]
fn a_fatal_alert_is_no_clean_end() {
    run(async {
        let mut forged = Forged::connect().await;
        let sent = [forged.forger.data(b"last"), forged.forger.alert(2, 80)];
        forged.send(&sent.concat()).await;
        assert_eq!(forged.refusal(b"last").await, io::ErrorKind::InvalidData);

        let (mut server, mut client, mut tls12) = connect_tls12().await;
        let sent = [tls12.data(b"last"), tls12.alert(2, 80)];
        client.write_all(&sent.concat()).await.unwrap();
        let mut heard = Vec::new();
        let error = server.read_to_end(&mut heard).await.unwrap_err();
        assert_eq!(
            (error.kind(), &heard[..]),
            (io::ErrorKind::InvalidData, &b"last"[..])
        );
    });
}

#[test]
fn a_client_that_gives_up_politely_has_ended() {
    run(async {
        // user_canceled, then close_notify (RFC 8446 §6.1); what comes after that is not looked at.
        let mut forged = Forged::connect().await;
        let sent = [
            forged.forger.data(b"last"),
            forged.forger.alert(1, 90),
            forged.forger.alert(1, 0),
            b"any bytes at all".to_vec(),
        ];
        forged.send(&sent.concat()).await;
        let mut heard = Vec::new();
        forged.server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last");
        forged.answer(b"answer").await;
        assert_eq!(forged.client.read().await, b"answer");
    });
}

#[test]
fn a_stream_that_is_cut_within_a_record_is_no_clean_end() {
    run(async {
        let mut forged = Forged::connect().await;
        let record = forged.forger.data(b"more");
        for cut in 0..record.len() {
            let mut forged = Forged::connect().await;
            let last = forged.forger.data(b"last");
            let more = forged.forger.data(b"more");
            forged.send(&last).await;
            forged.send(&more[..cut]).await;
            forged.client.stream.shutdown().await.unwrap();
            let kind = forged.refusal(b"last").await;
            assert_eq!(kind, io::ErrorKind::UnexpectedEof, "cut at {cut}");
        }
    });
}

#[test]
fn a_new_handshake_on_an_old_connection_is_not_begun() {
    run(async {
        let (mut server, mut client, mut tls12) = connect_tls12().await;
        // Any ClientHello will do; the first is declined by a warning (RFC 5246 §7.2.2), and the connection lives on.
        let name = ServerName::try_from(NAME).unwrap();
        let mut again = ClientConnection::new(CONFIGS[1].1.clone(), name).unwrap();
        let mut hello = Vec::new();
        again.write_tls(&mut hello).unwrap();
        let hello = &hello[5..];
        let sent = [
            tls12.data(b"before "),
            tls12.record(ContentType::Handshake, hello),
            tls12.data(b"after"),
        ];
        client.write_all(&sent.concat()).await.unwrap();
        let mut heard = [0; 12];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"before after");
        let mut record = [0; 5];
        client.read_exact(&mut record).await.unwrap();
        assert_eq!(record[0], 21);
        let sent = tls12.record(ContentType::Handshake, hello);
        client.write_all(&sent).await.unwrap();
        let error = server.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);

        // TLS 1.3 knows none at all.
        let mut forged = Forged::connect().await;
        let sent = forged.forger.record(ContentType::Handshake, hello);
        forged.send(&sent).await;
        assert_eq!(forged.refusal(b"").await, io::ErrorKind::InvalidData);
        let alert = forged.alert().await;
        assert_eq!(alert, Some(AlertDescription::UnexpectedMessage));
    });
}

#[test]
fn a_message_that_broke_off_and_what_stands_in_its_place_end_the_connection() {
    run(async {
        // A change of keys of which the last byte is missing.
        const CUT: [u8; 4] = [24, 0, 0, 1];
        let mut forged = Forged::connect().await;
        let sent = [
            forged.forger.data(b"last"),
            forged.forger.record(ContentType::Handshake, &CUT),
            forged.forger.data(b"between"),
        ];
        forged.send(&sent.concat()).await;
        assert_eq!(forged.refusal(b"last").await, io::ErrorKind::InvalidData);
        forged.server.write_all(b"late").await.unwrap_err();

        // The same, and then a record that nobody sealed.
        let mut forged = Forged::connect().await;
        let mut spoilt = forged.forger.data(b"between");
        spoilt[10] ^= 1;
        let sent = [forged.forger.record(ContentType::Handshake, &CUT), spoilt];
        forged.send(&sent.concat()).await;
        assert_eq!(forged.refusal(b"").await, io::ErrorKind::InvalidData);
        forged.server.shutdown().await.unwrap();
        assert_eq!(forged.alert().await, Some(AlertDescription::BadRecordMac));
    });
}

#[test]
fn a_bad_message_may_have_another_behind_it() {
    run(async {
        // Two messages in one record, of which the first is none that a client sends.
        let mut forged = Forged::connect().await;
        let sent = forged
            .forger
            .record(ContentType::Handshake, &[20, 0, 0, 0, 20, 0, 0, 0]);
        forged.send(&sent).await;
        assert_eq!(forged.refusal(b"").await, io::ErrorKind::InvalidData);
        forged.server.shutdown().await.unwrap();
        let alert = forged.alert().await;
        assert_eq!(alert, Some(AlertDescription::UnexpectedMessage));
    });
}
