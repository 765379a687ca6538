//! What a registry has already, asked before anything is pushed.

use ureq::http::{Method, header};

use crate::auth::Scope;
use crate::client::{Client, Purpose};
use crate::error::Result;
use crate::failed::Failed;
use crate::manifest::ACCEPT_MANIFESTS;
use kiln_image::{Digest, Reference};

impl Client {
    /// Whether the tag of the reference (or, without a tag, its digest) stands for `digest` in the registry itself;
    /// mirrors are not asked. False also when the registry does not say.
    pub fn is_pushed(&self, reference: &Reference, digest: &Digest) -> Result<bool> {
        let name = reference.tag.clone().unwrap_or_else(|| digest.to_string());
        self.on_endpoints("look for manifest of", reference, Purpose::Push, |endpoint| {
            let mut request = self.request(Method::HEAD, endpoint.url(&format!("manifests/{name}")));
            request
                .headers
                .push((header::ACCEPT, ACCEPT_MANIFESTS.join(", ")));
            let scope = Scope::push(&endpoint.repository);
            self.retrying(&request.url, || {
                let (response, authorization) = self.call(endpoint, &scope, &request)?;
                match response.status.as_u16() {
                    200 => {
                        let there = response.header("docker-content-digest");
                        Ok(there.is_some_and(|there| there.trim().parse() == Ok(*digest)))
                    }
                    404 => Ok(false),
                    _ => Err(Failed::status(response, &authorization.state)),
                }
            })
        })
    }
}
