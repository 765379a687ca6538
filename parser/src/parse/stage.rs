//! FROM.

use super::{Context, Parts, shorten};
use crate::ast::From;
use crate::instruction::Keyword;
use crate::span::Spanned;

impl Context<'_> {
    pub(super) fn from(&mut self, parts: &mut Parts) -> Option<From> {
        let words = Self::plain_words(&parts.arguments);
        let platform = parts.flags.text("platform");
        let (image, name) = match words.as_slice() {
            [image] => (image, None),
            [image, keyword, name] if keyword.text.eq_ignore_ascii_case("as") => {
                (image, Some((keyword, name)))
            }
            _ => {
                let usage = format!("usage: {}", Keyword::From.info().usage);
                self.error_hint(
                    parts.arguments.span,
                    "FROM requires either one or three arguments",
                    usage,
                );
                return None;
            }
        };
        self.check(image);
        if let Some(platform) = &platform {
            self.check(platform);
        }
        let mut from = From {
            platform,
            image: image.clone(),
            name: None,
            name_text: None,
            as_keyword: None,
        };
        if let Some((keyword, name)) = name {
            let lower = name.text.to_lowercase();
            if !valid_name(&lower) {
                let message = format!("invalid name for build stage: {:?}", shorten(&name.text));
                let rule = "names start with a letter; letters, digits, -, _ and . may follow";
                self.error_hint(name.span, message, rule);
                return None;
            }
            from.name = Some(Spanned::new(lower, name.span));
            from.name_text = Some(name.text.clone());
            from.as_keyword = Some(Spanned::new(keyword.text.clone(), keyword.span));
        }
        Some(from)
    }
}

fn valid_name(name: &str) -> bool {
    name.starts_with(|character: char| character.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte))
}
