//! The body of an external backend.

use ipnet::IpNet;
use route_table::{Authorities, External, ExternalTls, Hostname, MAX_DENIED_RANGES};
use rustls::pki_types::CertificateDer;

use super::{FieldProblem, Place, Result, address, bounded, port};
use crate::wire;

pub(crate) fn external(message: &wire::External) -> Result<External> {
    let wire::External {
        host,
        port: number,
        tls,
        denied,
    } = message;
    let place = Place::root("host");
    let host = Hostname::parse(host).map_err(|error| place.error(FieldProblem::Hostname(error)))?;
    let place = Place::root("denied");
    // More than a list of a route may have: our own pods are denied one by one.
    if denied.len() > MAX_DENIED_RANGES {
        return Err(place.error(FieldProblem::TooMany));
    }
    let denied = denied.iter().enumerate();
    let denied = denied.map(|(index, listed)| range(&place.at(index), listed));
    let tls = tls
        .as_ref()
        .map(|tls| external_tls(&Place::root("tls"), tls));
    Ok(External {
        host,
        port: port(&Place::root("port"), *number)?,
        tls: tls.transpose()?,
        denied: denied.collect::<Result<_>>()?,
    })
}

fn external_tls(place: &Place<'_>, message: &wire::ExternalTls) -> Result<ExternalTls> {
    use wire::external_tls::Authorities as From;
    let authorities = match &message.authorities {
        Some(From::System(wire::SystemAuthorities {})) => Authorities::System,
        Some(From::Private(wire::PrivateAuthorities { certificates })) => {
            bounded(&place.field("certificates"), certificates)?;
            let certificates = certificates.iter();
            let certificates = certificates.map(|der| CertificateDer::from(der.to_vec()));
            Authorities::These(certificates.collect())
        }
        // Nobody at all would be trusted, or anybody: neither was asked for.
        None => return Err(place.field("authorities").error(FieldProblem::Unknown)),
    };
    Ok(ExternalTls { authorities })
}

fn range(place: &Place<'_>, message: &wire::AddressRange) -> Result<IpNet> {
    let wire::AddressRange {
        address: bytes,
        prefix_length,
    } = message;
    let address = address(&place.field("address"), bytes)?;
    let length = u8::try_from(*prefix_length).ok();
    let range = length.and_then(|length| IpNet::new(address, length).ok());
    range.ok_or_else(|| place.field("prefix_length").error(FieldProblem::Prefix))
}
