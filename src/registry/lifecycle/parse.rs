//! From a text to a policy whose rules are valid, one by one and together.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{PolicyError, PolicyProblem};
use super::members::{Members, Place, quoted};
use super::policy::{
    ActionKind, Limit, MAX_NUMBER, MAX_RULES, MAX_TEXT_LEN, MAX_WILDCARDS, MIN_ARCHIVED_DAYS, Pattern, Policy, Rule,
    Selection, SignOfLife, StorageClass, TagSelection,
};
use crate::json::Json;

/// What a policy may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// What Amazon ECR takes.
    Ecr,
    /// That, and the extensions.
    Extended,
}

impl Dialect {
    /// Refuses an extension where only ECR's rules are allowed.
    fn extension(self, members: &Members<'_>, member: &'static str, name: &'static str) -> Result<(), PolicyError> {
        match self {
            Self::Extended => Ok(()),
            Self::Ecr => Err(members.error(member, PolicyProblem::Extension { name })),
        }
    }
}

/// Reads a policy.
pub(super) fn policy(text: &str, dialect: Dialect) -> Result<Policy, PolicyError> {
    let nowhere = Place::default();
    let found = text.chars().count();
    if found > MAX_TEXT_LEN {
        return Err(nowhere.error("", PolicyProblem::TooLong { found, max: MAX_TEXT_LEN }));
    }
    let syntax = |error: serde_json::Error| PolicyProblem::Syntax { line: error.line(), column: error.column() };
    let document: Json = serde_json::from_str(text).map_err(|error| nowhere.error("", syntax(error)))?;
    if !matches!(document, Json::Object(_)) {
        return Err(nowhere.error("", PolicyProblem::NotAnObject));
    }
    let members = Members::of(&document, nowhere, "", &["rules"])?;
    members.required("rules")?;
    let list = members.list("rules")?.unwrap_or_default();
    match list.len() {
        0 => return Err(members.error("rules", PolicyProblem::TooFew { min: 1, found: 0 })),
        found if found > MAX_RULES => {
            return Err(members.error("rules", PolicyProblem::TooMany { max: MAX_RULES, found }));
        }
        _ => {}
    }
    let rules = list.iter().enumerate().map(|(at, json)| rule(json, at + 1, dialect));
    let rules = rules.collect::<Result<Vec<_>, _>>()?;
    together(&rules)?;
    Ok(Policy::of(rules))
}

/// Reads one rule: what it says alone.
fn rule(json: &Json, number: usize, dialect: Dialect) -> Result<Rule, PolicyError> {
    let place = Place { rule: Some(number), priority: None };
    let mut members = Members::of(json, place, "", &["rulePriority", "description", "selection", "action"])?;
    let priority = members.number("rulePriority", 1, MAX_NUMBER)?;
    members.place.priority = Some(priority);
    let description = members.text("description")?.map(str::to_owned);
    let selection = selection(members.required("selection")?, members.place, dialect)?;
    let action = action(members.required("action")?, members.place)?;
    fits(&selection, action, &members, dialect)?;
    Ok(Rule { priority, description, selection, action })
}

/// Whether a rule's action may be taken on what it selects.
fn fits(selection: &Selection, action: ActionKind, members: &Members<'_>, dialect: Dialect) -> Result<(), PolicyError> {
    match (selection.limit, action) {
        (Limit::Pulled { .. }, ActionKind::Expire) => {
            dialect.extension(members, "action.type", "expire with countType sinceImagePulled")
        }
        (Limit::Archived { .. }, ActionKind::Archive) => {
            let problem = PolicyProblem::Excludes { name: "type transition", with: "countType sinceImageTransitioned" };
            Err(members.error("action.type", problem))
        }
        _ => Ok(()),
    }
}

fn action(json: &Json, place: Place) -> Result<ActionKind, PolicyError> {
    let members = Members::of(json, place, "action", &["type", "targetStorageClass"])?;
    let actions = [ActionKind::Expire, ActionKind::Archive];
    let action = members.required_choice("type", &["expire", "transition"], &actions)?;
    let target = members.choice("targetStorageClass", &["archive"], &[StorageClass::Archive])?;
    let problem = match (action, target) {
        (ActionKind::Expire, None) | (ActionKind::Archive, Some(_)) => return Ok(action),
        (ActionKind::Expire, Some(_)) => PolicyProblem::Excludes { name: "targetStorageClass", with: "type expire" },
        (ActionKind::Archive, None) => {
            PolicyProblem::Requires { with: "type transition", needed: "targetStorageClass archive" }
        }
    };
    Err(members.error("targetStorageClass", problem))
}

fn selection(json: &Json, place: Place, dialect: Dialect) -> Result<Selection, PolicyError> {
    let known = [
        "tagStatus",
        "tagPatternList",
        "tagPrefixList",
        "storageClass",
        "countType",
        "countUnit",
        "countNumber",
        "artifactTypeList",
        "signOfLife",
    ];
    let members = Members::of(json, place, "selection", &known)?;
    let tags = tag_selection(&members)?;
    let classes = [StorageClass::Standard, StorageClass::Archive];
    let class = members.choice("storageClass", &["standard", "archive"], &classes)?;
    let limit = limit(&members, class)?;
    let artifact_types = match members.texts("artifactTypeList")? {
        None => Vec::new(),
        Some(types) => {
            dialect.extension(&members, "artifactTypeList", "artifactTypeList")?;
            patterns(&members, "artifactTypeList", &types, Pattern::new)?
        }
    };
    let sign_of_life = members.choice("signOfLife", &["tag"], &[SignOfLife::Tag])?;
    if sign_of_life.is_some() {
        dialect.extension(&members, "signOfLife", "signOfLife")?;
        if matches!(limit, Limit::Archived { .. }) {
            let problem = PolicyProblem::Excludes { name: "signOfLife", with: "countType sinceImageTransitioned" };
            return Err(members.error("signOfLife", problem));
        }
    }
    let (class, sign_of_life) = (class.unwrap_or_default(), sign_of_life.unwrap_or_default());
    Ok(Selection { class, tags, artifact_types, limit, sign_of_life })
}

/// `tagStatus`, before its list is known.
#[derive(Clone, Copy)]
enum TagStatus {
    Tagged,
    Untagged,
    Any,
}

/// What `tagStatus` and the lists say together.
fn tag_selection(members: &Members<'_>) -> Result<TagSelection, PolicyError> {
    let statuses = [TagStatus::Tagged, TagStatus::Untagged, TagStatus::Any];
    let status = members.required_choice("tagStatus", &["tagged", "untagged", "any"], &statuses)?;
    let lists = (members.texts("tagPatternList")?, members.texts("tagPrefixList")?);
    let excludes = |name, with| members.error(name, PolicyProblem::Excludes { name, with });
    let (with, selection) = match (status, &lists) {
        (TagStatus::Tagged, (Some(_), Some(_))) => return Err(excludes("tagPrefixList", "tagPatternList")),
        (TagStatus::Tagged, (Some(list), None)) if !list.is_empty() => {
            return patterns(members, "tagPatternList", list, Pattern::new).map(TagSelection::Tagged);
        }
        (TagStatus::Tagged, (None, Some(list))) if !list.is_empty() => {
            return patterns(members, "tagPrefixList", list, Pattern::prefix).map(TagSelection::Tagged);
        }
        (TagStatus::Tagged, _) => return Err(members.error("tagStatus", PolicyProblem::NoTagList)),
        (TagStatus::Untagged, _) => ("tagStatus untagged", TagSelection::Untagged),
        (TagStatus::Any, _) => ("tagStatus any", TagSelection::Any),
    };
    match lists {
        (None, None) => Ok(selection),
        (Some(_), _) => Err(excludes("tagPatternList", with)),
        (None, Some(_)) => Err(excludes("tagPrefixList", with)),
    }
}

/// A list of patterns, each once.
fn patterns(
    members: &Members<'_>,
    name: &'static str,
    texts: &[&str],
    pattern: fn(&str) -> Pattern,
) -> Result<Vec<Pattern>, PolicyError> {
    if texts.is_empty() {
        return Err(members.error(name, PolicyProblem::TooFew { min: 1, found: 0 }));
    }
    let mut unique = BTreeSet::new();
    for text in texts {
        if text.is_empty() {
            return Err(members.error(name, PolicyProblem::EmptyPattern));
        }
        let found = text.matches('*').count();
        if found > MAX_WILDCARDS {
            let pattern = quoted(text);
            return Err(members.error(name, PolicyProblem::Wildcards { pattern, found, max: MAX_WILDCARDS }));
        }
        unique.insert(pattern(text));
    }
    Ok(unique.into_iter().collect())
}

/// What a `countType` is, before its number is known.
#[derive(Clone, Copy)]
struct CountType {
    name: &'static str,
    class: StorageClass,
    limit: fn(u32) -> Limit,
}

fn limit(members: &Members<'_>, class: Option<StorageClass>) -> Result<Limit, PolicyError> {
    const NAMES: &[&str] = &["imageCountMoreThan", "sinceImagePushed", "sinceImagePulled", "sinceImageTransitioned"];
    use StorageClass::{Archive, Standard};
    let types = [
        CountType { name: "countType imageCountMoreThan", class: Standard, limit: Limit::Newest },
        CountType { name: "countType sinceImagePushed", class: Standard, limit: |days| Limit::Pushed { days } },
        CountType { name: "countType sinceImagePulled", class: Standard, limit: |days| Limit::Pulled { days } },
        CountType { name: "countType sinceImageTransitioned", class: Archive, limit: |days| Limit::Archived { days } },
    ];
    let CountType { name: with, class: of, limit } = members.required_choice("countType", NAMES, &types)?;
    let is_count = matches!(limit(0), Limit::Newest(_));
    let unit = members.choice("countUnit", &["days"], &[()])?;
    let problem = match (unit, is_count) {
        (Some(()), true) => Some(PolicyProblem::Excludes { name: "countUnit", with }),
        (None, false) => Some(PolicyProblem::Requires { with, needed: "countUnit days" }),
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(members.error("countUnit", problem));
    }
    let problem = match (of, class.unwrap_or_default()) {
        (Archive, Standard) => Some(PolicyProblem::Requires { with, needed: "storageClass archive" }),
        (Standard, Archive) => Some(PolicyProblem::Excludes { name: "storageClass archive", with }),
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(members.error("storageClass", problem));
    }
    let minimum = if of == Archive { MIN_ARCHIVED_DAYS } else { 1 };
    members.number("countNumber", minimum, MAX_NUMBER).map(limit)
}

/// Checks what rules must not say together. Rules for artifact types, an extension, are rules of a group of their own.
fn together(rules: &[Rule]) -> Result<(), PolicyError> {
    let mut priorities = BTreeSet::new();
    let mut groups: BTreeMap<_, Vec<(usize, &Rule)>> = BTreeMap::new();
    for (at, rule) in rules.iter().enumerate() {
        let priority = rule.priority;
        if !priorities.insert(priority) {
            return Err(problem(at, rule, "rulePriority", PolicyProblem::SamePriority { priority }));
        }
        groups.entry((rule.selection.class, &rule.selection.artifact_types)).or_default().push((at, rule));
    }
    groups.values().try_for_each(|group| group_together(group))
}

fn group_together(group: &[(usize, &Rule)]) -> Result<(), PolicyError> {
    let last = group.iter().map(|(_, rule)| rule.priority).max();
    let mut untagged = 0;
    let mut tagged: BTreeMap<&[Pattern], u32> = BTreeMap::new();
    for &(at, rule) in group {
        match &rule.selection.tags {
            TagSelection::Any if Some(rule.priority) != last => {
                return Err(problem(at, rule, "rulePriority", PolicyProblem::AnyNotLast));
            }
            TagSelection::Untagged if untagged > 0 => {
                return Err(problem(at, rule, "selection.tagStatus", PolicyProblem::SecondUntagged));
            }
            TagSelection::Any => {}
            TagSelection::Untagged => untagged += 1,
            TagSelection::Tagged(patterns) => {
                if let Some(first) = tagged.insert(patterns, rule.priority) {
                    let same = PolicyProblem::SameTags { first, second: rule.priority };
                    return Err(problem(at, rule, "selection", same));
                }
            }
        }
    }
    Ok(())
}

fn problem(at: usize, rule: &Rule, member: &str, problem: PolicyProblem) -> PolicyError {
    Place { rule: Some(at + 1), priority: Some(rule.priority) }.error(member, problem)
}
