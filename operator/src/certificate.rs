//! Certificates of prover pods, for fleets whose jobs hold secrets: an authority for each fleet, made once, and a certificate
//! that it signs anew at each rotation. Clients trust the authority, so a rotation needs nothing of them.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// PEM texts.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("no certificate: {0}")]
pub struct CertificateError(String);

impl From<rcgen::Error> for CertificateError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

/// How long an authority is valid.
const AUTHORITY: Duration = Duration::from_hours(24 * 3650);

fn authority_params(fleet: &str) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("upgrader-fleet {fleet}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, AUTHORITY)?;
    Ok(params)
}

/// From an hour ago, for clocks that differ.
fn valid_for(params: &mut CertificateParams, time: Duration) -> Result<(), CertificateError> {
    let day = |at: Timestamp| {
        let date = at.to_zoned(k8s_openapi::jiff::tz::TimeZone::UTC).date();
        rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8)
    };
    let now = Timestamp::now();
    let end = now.checked_add(time).map_err(|error| CertificateError(error.to_string()))?;
    params.not_before = day(now);
    // Whole days only: one more, so that it is never less than asked for.
    params.not_after = day(end.checked_add(Duration::from_hours(24)).map_err(|error| CertificateError(error.to_string()))?);
    Ok(())
}

/// A new authority for a fleet.
///
/// # Errors
/// No randomness.
pub fn authority(fleet: &str) -> Result<Pem, CertificateError> {
    let key = KeyPair::generate()?;
    let certificate = authority_params(fleet)?.self_signed(&key)?;
    Ok(Pem { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A certificate for these names, signed by the authority with this key.
///
/// # Errors
/// The key is none, or a name is none.
pub fn certificate(fleet: &str, authority_key: &str, names: Vec<String>, time: Duration) -> Result<Pem, CertificateError> {
    let issuer = Issuer::new(authority_params(fleet)?, KeyPair::from_pem(authority_key)?);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("provers of {fleet}"));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    valid_for(&mut params, time)?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pem { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The names by which clients call a Service.
pub fn service_names(service: &str, namespace: &str) -> Vec<String> {
    vec![
        service.to_owned(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    #[test]
    fn a_rotated_certificate_is_trusted_by_who_trusts_the_authority() {
        let ca = authority("prod").expect("an authority");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.certificate.as_bytes()).expect("PEM")).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier");
        let names = || service_names("prod-provers", "proofs");
        for _ in 0..2 {
            let leaf = certificate("prod", &ca.key, names(), Duration::from_hours(48)).expect("a certificate");
            let der = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).expect("PEM");
            let check = |name: &'static str| {
                verifier.verify_server_cert(&der, &[], &ServerName::try_from(name).expect("a name"), &[], UnixTime::now())
            };
            assert!(check("prod-provers.proofs.svc").is_ok());
            assert!(check("other.proofs.svc").is_err());
        }
    }
}
