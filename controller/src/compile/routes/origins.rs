//! Which pages a rule takes requests from.

use crds::{MAX_ALLOWED_ORIGINS, RouteRule};
use route_table::{OriginPattern, OriginPolicy};

use super::forms::shown;
use crate::compile::draft::Draft;

/// Reads `allowedOrigins` and `allowMissingOrigin`; `field` is the rule's place in the spec.
pub(super) fn read_origins(draft: &mut Draft, field: &str, rule: &RouteRule) -> OriginPolicy {
    let mut allowed = Vec::new();
    if let Some(listed) = &rule.allowed_origins {
        let field = format!("{field}.allowedOrigins");
        // An empty list could be meant as any origin or as none, and is refused.
        for (index, text) in draft
            .bounded(&field, listed, MAX_ALLOWED_ORIGINS)
            .iter()
            .enumerate()
        {
            match OriginPattern::parse(text) {
                Ok(origin) => allowed.push(origin),
                Err(error) => {
                    draft.refuse(
                        &format!("{field}[{index}]"),
                        &format!("{} {error}", shown(text)),
                    );
                }
            }
        }
    }
    OriginPolicy {
        allowed,
        refuse_missing: !rule.allow_missing_origin,
    }
}
