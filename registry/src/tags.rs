//! Lists of tags, page by page.

use serde::Deserialize;
use ureq::http::Method;

use crate::auth::Scope;
use crate::client::{Client, Plain, Purpose};
use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::failed::Failed;
use crate::url::Url;
use kiln_image::Reference;

/// Bytes of one page of a tag list.
const TAG_PAGE_LIMIT: u64 = 8 * 1024 * 1024;
/// Pages of a tag list. A server that points back at itself does not hold us for ever.
const TAG_PAGES: usize = 1000;
/// Bytes of all tags: half a million of a usual length.
const TAGS_LIMIT: usize = 16 * 1024 * 1024;

impl Client {
    /// All tags of the repository, in the registry's order.
    pub fn tags(&self, reference: &Reference) -> Result<Vec<String>> {
        self.on_endpoints("list tags of", reference, Purpose::Name, |endpoint| {
            let (mut tags, mut size) = (Vec::new(), 0);
            let mut next = Some(endpoint.url("tags/list"));
            for _ in 0..TAG_PAGES {
                let Some(url) = next else { return Ok(tags) };
                let request = self.request(Method::GET, url.clone());
                let (page, link) = self.retrying(&url, || self.tag_page(endpoint, &request))?;
                size += page.iter().map(String::len).sum::<usize>();
                if size > TAGS_LIMIT {
                    let cause = format!("the tag list has more than {} MiB", TAGS_LIMIT >> 20);
                    return Err(Failed::protocol(&endpoint.base, cause));
                }
                tags.extend(page);
                next = link;
            }
            Err(Failed::protocol(
                &endpoint.base,
                format!("the tag list has more than {TAG_PAGES} pages"),
            ))
        })
    }

    fn tag_page(
        &self,
        endpoint: &Endpoint,
        request: &Plain<'_>,
    ) -> std::result::Result<(Vec<String>, Option<Url>), Failed> {
        #[derive(Deserialize)]
        struct Page {
            // Null for a repository without tags.
            tags: Option<Vec<String>>,
        }
        let (mut response, authorization) =
            self.call_ok(endpoint, &Scope::pull(&endpoint.repository), request)?;
        let bytes = response
            .read_limited(TAG_PAGE_LIMIT)
            .map_err(|error| Failed::body(&response.url, error, &authorization.state))?;
        let page = bytes.and_then(|bytes| serde_json::from_slice::<Page>(&bytes).ok());
        let Some(page) = page else {
            return Err(Failed::protocol(
                &response.url,
                "the answer is no tag list".to_owned(),
            ));
        };
        let link = response.header("link").and_then(next_link);
        let next = match link.map(|link| response.url.join(link)) {
            None => None,
            Some(Ok(url)) => Some(url),
            Some(Err(error)) => {
                return Err(Failed::protocol(
                    &response.url,
                    format!("unusable link to the next page: {error}"),
                ));
            }
        };
        Ok((page.tags.unwrap_or_default(), next))
    }
}

/// The target of `<…>; rel="next"`.
fn next_link(header: &str) -> Option<&str> {
    let (target, parameters) = header.trim().strip_prefix('<')?.split_once('>')?;
    let parameters = parameters.replace([' ', '"'], "").to_ascii_lowercase();
    parameters
        .split([';', ','])
        .any(|parameter| parameter == "rel=next")
        .then_some(target)
}

#[cfg(test)]
mod tests {
    use super::next_link;

    #[test]
    fn links() {
        let cases = [
            (
                "</v2/a/tags/list?last=x&n=2>; rel=\"next\"",
                Some("/v2/a/tags/list?last=x&n=2"),
            ),
            ("<https://h/p>;rel=next", Some("https://h/p")),
            ("<https://h/p>; rel=\"prev\"", None),
            ("https://h/p", None),
            ("<", None),
        ];
        for (header, want) in cases {
            assert_eq!(next_link(header), want, "{header}");
        }
    }
}
