//! Renewal as a function of time, judged by the verifier that dataplanes use.

use std::collections::BTreeMap;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{ServerName, UnixTime};

use super::*;

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn made(now: Timestamp) -> Material {
    Material::renew(None, now).unwrap().unwrap()
}

/// Whether a dataplane that trusts `bundle` accepts `server` as `name` at `now`.
fn accepts(
    bundle: &[CertificateDer<'static>],
    server: &CertificateDer<'static>,
    name: &str,
    now: Timestamp,
) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(bundle.to_vec());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let now = Duration::from_secs(now.as_second().unsigned_abs());
    let now = UnixTime::since_unix_epoch(now);
    let name = ServerName::try_from(name).unwrap();
    verifier
        .verify_server_cert(server, &[], &name, &[], now)
        .is_ok()
}

fn renewed(current: &Material, now: Timestamp) -> Material {
    let renewed = Material::renew(Some(current), now).unwrap();
    renewed.unwrap_or_else(|| current.clone())
}

#[test]
fn certificate_is_accepted_by_its_own_bundle_and_name_alone() {
    let [ours, other] = [made(start()), made(start())];
    let name = push::SERVER_NAME;
    assert!(accepts(&ours.authorities, &ours.server, name, start()));
    assert!(!accepts(&other.authorities, &ours.server, name, start()));
    assert!(!accepts(
        &ours.authorities,
        &ours.server,
        "localhost",
        start()
    ));
}

#[test]
fn the_ca_is_good_for_nothing_else() {
    let ours = made(start());
    let name = "chat.example.com";
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    set_validity(&mut params, start(), start() + signed(SERVER_VALIDITY));
    let key = KeyPair::generate().unwrap();
    let forged = ours.ca_key.with_pair(|ca| {
        let issuer = Issuer::from_ca_cert_der(ours.newest(), ca)?;
        Ok(params.signed_by(&key, &issuer)?)
    });
    let forged = forged.unwrap();
    assert!(!accepts(&ours.authorities, forged.der(), name, start()));
}

#[test]
fn nothing_is_renewed_before_it_is_due() {
    let material = made(start());
    let day_59 = start() + signed(days(59));
    for now in [start(), day_59] {
        assert!(Material::renew(Some(&material), now).unwrap().is_none());
    }
    let day_60 = start() + signed(days(60));
    let next = Material::renew(Some(&material), day_60).unwrap().unwrap();
    assert_eq!(next.authorities, material.authorities);
    assert!(next.server != material.server && next.server_key != material.server_key);
}

#[test]
fn a_new_ca_waits_in_the_bundle_while_the_old_one_signs_once_more() {
    let material = made(start());
    let due = start() + signed(CA_VALIDITY) - signed(CA_RENEW_BEFORE);
    let next = renewed(&material, due);
    assert_eq!(next.authorities.len(), 2);
    assert_eq!(next.authorities[1], material.authorities[0]);
    assert!(next.ca_key != material.ca_key);
    // A dataplane with the old bundle still accepts it.
    let name = push::SERVER_NAME;
    assert!(accepts(&material.authorities, &next.server, name, due));
    assert!(Material::renew(Some(&next), due).unwrap().is_none());
}

#[test]
fn a_dataplane_with_the_bundle_of_an_hour_ago_always_gets_in() {
    let mut material = made(start());
    let mut authorities = vec![material.newest().clone()];
    for day in 0..4 * 730 {
        let now = start() + signed(days(day));
        let known = material.authorities.clone();
        material = renewed(&material, now);
        assert!(material.authorities.len() <= 2, "day {day}");
        let name = push::SERVER_NAME;
        assert!(
            accepts(&known, &material.server, name, now),
            "day {day}: the old bundle"
        );
        assert!(
            accepts(&material.authorities, &material.server, name, now),
            "day {day}"
        );
        if !authorities.contains(material.newest()) {
            authorities.push(material.newest().clone());
        }
    }
    // It was renewed all along, and old ones left.
    assert!(authorities.len() > 4, "{}", authorities.len());
}

#[test]
fn after_a_long_absence_there_is_a_way_on() {
    let material = made(start());
    let name = push::SERVER_NAME;
    // The server certificate ended, the CA did not.
    let later = start() + signed(days(200));
    let next = renewed(&material, later);
    assert!(accepts(&material.authorities, &next.server, name, later));
    // A day before the CA's end its last certificate is as short as that, and the next one comes in time.
    let last_day = start() + signed(CA_VALIDITY) - signed(days(1));
    let next = renewed(&material, last_day);
    assert!(accepts(&material.authorities, &next.server, name, last_day));
    let settled = last_day + signed(BUNDLE_LEAD);
    let after = renewed(&next, settled);
    assert!(after.server != next.server);
    assert!(accepts(&next.authorities, &after.server, name, settled));
    // All of it ended.
    let end = start() + signed(CA_VALIDITY);
    let fresh = renewed(&material, end);
    assert_eq!(fresh.authorities.len(), 1);
    assert!(accepts(&fresh.authorities, &fresh.server, name, end));
}

fn values(material: &Material) -> BTreeMap<&'static str, Vec<u8>> {
    let values = material.values().into_iter();
    values
        .map(|(name, text)| (name, text.as_bytes().to_vec()))
        .collect()
}

fn read(values: &BTreeMap<&'static str, Vec<u8>>) -> std::result::Result<Material, Damaged> {
    Material::read(|name| values.get(name).map(Vec::as_slice))
}

#[test]
fn what_is_written_is_read_back() {
    let material = renewed(&made(start()), start() + signed(days(600)));
    assert_eq!(material.authorities.len(), 2);
    assert!(read(&values(&material)).unwrap() == material);
}

#[test]
fn each_value_that_is_missing_or_wrong_is_named() {
    let [ours, other] = [made(start()), made(start())].map(|material| values(&material));
    for name in [CA_CERTIFICATES, CA_KEY, SERVER_CERTIFICATE, SERVER_KEY] {
        let mut missing = ours.clone();
        missing.remove(name);
        let mut garbage = ours.clone();
        garbage.insert(name, b"-----BEGIN PRIVATE KEY-----\nAAAA\n".to_vec());
        for damaged in [missing, garbage] {
            let error = read(&damaged).err().unwrap();
            assert_eq!(error, Damaged(name));
        }
    }
    for (foreign, named) in [(CA_KEY, CA_KEY), (SERVER_CERTIFICATE, SERVER_KEY)] {
        let mut mixed = ours.clone();
        mixed.insert(foreign, other[foreign].clone());
        assert_eq!(read(&mixed).err().unwrap(), Damaged(named));
    }
}

#[test]
fn keys_are_not_shown() {
    let material = made(start());
    let shown = format!("{material:?} {material:#?} {:?}", material.server_config());
    for key in [&material.ca_key, &material.server_key] {
        for form in forms(&key.0) {
            assert!(!shown.contains(&form));
            // The search finds what is there.
            assert!(format!("{shown}{form}").contains(&form));
        }
    }
}

/// The ways in which bytes end up in a text: a line of PEM, base64, hex in both cases, a list of numbers.
fn forms(key: &[u8]) -> [String; 5] {
    let hex = key.iter().map(|byte| format!("{byte:02x}"));
    let hex = hex.collect::<String>();
    let line = pem("PRIVATE KEY", key).lines().nth(1).unwrap().to_owned();
    let list = format!("{:?}", &key[key.len() - 16..]);
    let list = list.trim_matches(['[', ']']).to_owned();
    [
        line,
        BASE64_STANDARD.encode(key),
        hex.to_uppercase(),
        hex,
        list,
    ]
}

#[test]
fn however_often_a_successor_is_made_the_bundle_is_bounded_and_knows_the_server_certificate() {
    let name = push::SERVER_NAME;
    for later in [0, 70] {
        let now = start() + signed(days(later));
        let mut material = made(start());
        for _ in 0..2 * MAX_AUTHORITIES {
            let before = material.authorities.clone();
            material = material.succeed(now).unwrap();
            assert!(material.authorities.len() <= MAX_AUTHORITIES);
            assert!(accepts(&material.authorities, &material.server, name, now));
            // Also by those that have not heard of the new one yet.
            assert!(accepts(&before, &material.server, name, now));
            let values = material.values();
            let value = |name: &str| {
                let mut values = values.iter();
                values
                    .find(|(key, _)| *key == name)
                    .map(|(_, text)| text.as_bytes())
            };
            assert!(Material::read(value).unwrap() == material);
        }
    }
    let over = start() + signed(CA_VALIDITY);
    assert_eq!(made(start()).succeed(over).unwrap().authorities(), 1);
}
