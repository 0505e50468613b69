//! What a token's claims allow. Every decision about who may do what is one of these.

use super::claims::Claims;
use super::permissions::Permission;
use crate::event::Event;

/// Whether the bearer may connect as a viewer; it then sees its own stream.
pub fn may_subscribe(claims: &Claims) -> bool {
    claims.permissions.has(Permission::Subscribe)
}

/// Whether `project` is among the token's projects. A wider right to publish gives no sight of
/// a project.
pub fn may_see_project(claims: &Claims, project: &str) -> bool {
    let found = claims
        .projects
        .binary_search_by(|own| own.as_str().cmp(project));
    found.is_ok()
}

/// Whether the bearer may connect as a publisher at all; if not, `FORBIDDEN`.
pub fn may_publish(claims: &Claims) -> bool {
    claims.permissions.has(Permission::Publish) || claims.permissions.has(Permission::PublishAny)
}

/// Whether the bearer may speak to this event's audience; if not, `FORBIDDEN_AUDIENCE`. With
/// `publish` alone, each audience that the event names must be the token's own user or one of its
/// projects.
pub fn may_publish_event(claims: &Claims, event: &Event) -> bool {
    if claims.permissions.has(Permission::PublishAny) {
        return true;
    }
    let own_user = event.user.as_ref().is_none_or(|user| *user == claims.sub);
    let own_project = event
        .project
        .as_ref()
        .is_none_or(|project| may_see_project(claims, project));
    claims.permissions.has(Permission::Publish) && own_user && own_project
}

/// Whether the bearer may use `/v1/admin/*` and the operating pages.
pub fn is_admin(claims: &Claims) -> bool {
    claims.permissions.has(Permission::Admin)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Ada sees projects 7 and x.
    fn ada(permissions: &[Permission]) -> Claims {
        Claims {
            sub: "ada".into(),
            exp_s: 0,
            iat_s: None,
            tier: None,
            projects: ["7".into(), "x".into()].into(),
            permissions: permissions.iter().copied().collect(),
            session: None,
            jti: None,
        }
    }

    fn event(user: Option<&str>, project: Option<&str>) -> Event {
        Event {
            event_type: "completion".into(),
            user: user.map(Into::into),
            project: project.map(Into::into),
            session: None,
            event_id: None,
            timestamp_ms: 0,
            data: Bytes::from_static(b"{}"),
            message_type: None,
            tool_name: None,
        }
    }

    #[test]
    fn a_publisher_speaks_for_its_own_user_and_projects() {
        let table = [
            (Some("ada"), None, true),
            (Some("bob"), None, false),
            (Some("Ada"), None, false),
            (None, Some("7"), true),
            (None, Some("x"), true),
            (None, Some("70"), false),
            (None, Some(""), false),
            (Some("ada"), Some("7"), true),
            (Some("ada"), Some("8"), false),
            (Some("bob"), Some("7"), false),
        ];
        for (user, project, own) in table {
            let event = event(user, project);
            let may = |permission| may_publish_event(&ada(&[permission]), &event);
            assert_eq!(may(Permission::Publish), own, "{user:?} {project:?}");
            assert!(may(Permission::PublishAny));
            assert!(!may(Permission::Subscribe));
            assert!(!may(Permission::Admin));
        }
    }

    #[test]
    fn no_permission_implies_another() {
        for permission in Permission::ALL {
            let claims = ada(&[permission]);
            assert_eq!(is_admin(&claims), permission == Permission::Admin);
            assert_eq!(may_subscribe(&claims), permission == Permission::Subscribe);
            let publishes = matches!(permission, Permission::Publish | Permission::PublishAny);
            assert_eq!(may_publish(&claims), publishes);
        }
    }

    #[test]
    fn a_project_is_seen_only_by_its_exact_name() {
        let claims = ada(&[Permission::PublishAny, Permission::Admin]);
        for project in ["7", "x"] {
            assert!(may_see_project(&claims, project));
        }
        for project in ["", "07", "7 ", "X", "y"] {
            assert!(!may_see_project(&claims, project), "{project:?}");
        }
    }
}
