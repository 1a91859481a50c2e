//! Why a connection or a call is turned away before its stream begins: one table of causes, labels and answers.

use std::io;

use rustls::Error as TlsError;
use tonic::Status;

use crate::token::TokenError;

/// A connection or call that was turned away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("too many connections")]
    TooManyConnections,
    #[error("this replica has no certificate yet")]
    NoCertificate,
    #[error("the TLS handshake took too long")]
    HandshakeTimeout,
    #[error("the peer does not speak TLS")]
    NotTls,
    #[error("the peer does not offer what is asked for, TLS 1.3 above all")]
    IncompatibleTls,
    #[error("the peer does not accept our certificate")]
    CertificateNotAccepted,
    #[error("the TLS handshake failed")]
    Handshake,
    #[error("the peer does not speak HTTP/2, or broke off")]
    Http,
    #[error("the connection made room for one of another address")]
    Evicted,
    #[error("no call came in time")]
    NoCall,
    #[error("no token was accepted in time")]
    ProofTimeout,
    #[error("not the leader")]
    NotLeader,
    #[error("a connection carries one stream")]
    SecondStream,
    #[error("the pod begins streams too often")]
    TooManyStreams,
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl Refusal {
    /// What a failed TLS handshake means.
    pub(super) fn of_handshake(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|error| error.downcast_ref());
        match tls {
            Some(TlsError::InvalidMessage(_)) => Self::NotTls,
            Some(TlsError::PeerIncompatible(_)) => Self::IncompatibleTls,
            Some(TlsError::AlertReceived(_)) => Self::CertificateNotAccepted,
            // Not our enum; what else can go wrong in a handshake is all the same to an operator.
            Some(_) | None => Self::Handshake,
        }
    }

    /// The metric label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::TooManyConnections => "too_many_connections",
            Self::NoCertificate => "no_certificate",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::NotTls => "not_tls",
            Self::IncompatibleTls => "incompatible_tls",
            Self::CertificateNotAccepted => "certificate_not_accepted",
            Self::Handshake => "handshake",
            Self::Http => "http",
            Self::Evicted => "evicted",
            Self::NoCall => "no_call",
            Self::ProofTimeout => "proof_timeout",
            Self::NotLeader => "not_leader",
            Self::SecondStream => "second_stream",
            Self::TooManyStreams => "too_many_streams",
            Self::Token(error) => error.label(),
        }
    }

    /// What the peer is told; those before TLS is up it never hears.
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Token(error) => error.status(),
            Self::SecondStream | Self::TooManyStreams => {
                Status::resource_exhausted(self.to_string())
            }
            Self::TooManyConnections
            | Self::NoCertificate
            | Self::HandshakeTimeout
            | Self::NotTls
            | Self::IncompatibleTls
            | Self::CertificateNotAccepted
            | Self::Handshake
            | Self::Http
            | Self::Evicted
            | Self::NoCall
            | Self::ProofTimeout
            | Self::NotLeader => Status::unavailable(self.to_string()),
        }
    }
}
