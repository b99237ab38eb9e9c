//! Certificates of a cluster that lives for minutes.

use std::path::Path;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// An authority and what it signs, as files in a folder.
pub struct Authority<'a> {
    folder: &'a Path,
    issuer: Issuer<'static, KeyPair>,
    /// The authority's certificate, PEM.
    pub pem: String,
}

impl<'a> Authority<'a> {
    /// A new one; writes `ca.crt`.
    pub fn new(folder: &'a Path) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "test");
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        std::fs::write(folder.join("ca.crt"), &pem)?;
        Ok(Self { folder, issuer: Issuer::new(params, key), pem })
    }

    /// Signs a certificate for a user or server; writes `NAME.crt` and `NAME.key` and returns both.
    pub fn sign(&self, name: &str, user: &str, group: Option<&str>, hosts: &[&str]) -> Result<(String, String)> {
        let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let (certificate, key) = (params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem());
        std::fs::write(self.folder.join(format!("{name}.crt")), &certificate)?;
        std::fs::write(self.folder.join(format!("{name}.key")), &key)?;
        Ok((certificate, key))
    }

    /// A pair of keys for tokens of service accounts: `sa.key` and `sa.pub`.
    pub fn account_keys(&self) -> Result<()> {
        let key = KeyPair::generate()?;
        std::fs::write(self.folder.join("sa.key"), key.serialize_pem())?;
        std::fs::write(self.folder.join("sa.pub"), key.public_key_pem())?;
        Ok(())
    }
}
