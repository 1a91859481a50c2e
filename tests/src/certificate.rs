//! A test authority and the certificates it issues. The authority's own certificate is what clients trust.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::CertificateDer;

/// A certificate authority that lives as long as one test.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate for one or more names, with its key.
pub struct Issued {
    /// Leaf first, then the authority: a full chain, as cert-manager writes it.
    pub chain_pem: String,
    pub key_pem: String,
    /// What a client sees as the peer's certificate.
    pub leaf: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names to refuse");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "ws-ingress test authority");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a self-signed authority");
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// A fresh key and certificate for `names`; two calls never give the same.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_between(names, None)
    }

    /// One that is valid from the first day of one year to that of another.
    pub fn issue_between(&self, names: &[&str], years: Option<[i32; 2]>) -> Issued {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(names).expect("valid names");
        // Without a name of its own, issuer and subject are equal and OpenSSL takes the leaf for self-signed.
        params
            .distinguished_name
            .push(DnType::CommonName, "ws-ingress test");
        params.use_authority_key_identifier_extension = true;
        if let Some([from, to]) = years {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        }
        let leaf = params
            .signed_by(&key, &self.issuer)
            .expect("a signed certificate");
        Issued {
            chain_pem: format!("{}{}", leaf.pem(), self.certificate.pem()),
            key_pem: key.serialize_pem(),
            leaf: leaf.der().clone(),
        }
    }

    /// What a client must trust.
    pub fn root(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// The same as PEM, for clients in other languages.
    pub fn root_pem(&self) -> String {
        self.certificate.pem()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
