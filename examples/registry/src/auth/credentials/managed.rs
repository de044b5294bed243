//! The policies that AWS manages, as far as they are about registries: what they allow is what AWS documents.

/// A managed policy, by its name or by its ARN.
pub fn managed(name: &str) -> Option<&'static str> {
    let name = name.strip_prefix("arn:aws:iam::aws:policy/").unwrap_or(name);
    POLICIES.iter().find(|(known, _)| *known == name).map(|(_, document)| *document)
}

/// The names of all.
pub fn names() -> impl Iterator<Item = &'static str> {
    POLICIES.iter().map(|(name, _)| *name)
}

/// One statement that allows actions on everything.
macro_rules! allows {
    ($($action:literal),+ $(,)?) => {
        allows!(@list [] $($action),+)
    };
    (@list [$($done:expr),*] $last:literal) => {
        concat!(
            r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["#,
            $($done,)* "\"", $last, "\"",
            r#"],"Resource":"*"}]}"#
        )
    };
    (@list [$($done:expr),*] $next:literal, $($rest:literal),+) => {
        allows!(@list [$($done,)* "\"", $next, "\","] $($rest),+)
    };
}

const POLICIES: &[(&str, &str)] = &[
    ("AdministratorAccess", allows!("*")),
    (
        "AmazonEC2ContainerRegistryFullAccess",
        concat!(
            r#"{"Version":"2012-10-17","Statement":["#,
            r#"{"Effect":"Allow","Action":["ecr:*","cloudtrail:LookupEvents"],"Resource":"*"},"#,
            r#"{"Effect":"Allow","Action":["iam:CreateServiceLinkedRole"],"Resource":"*","Condition":"#,
            r#"{"StringEquals":{"iam:AWSServiceName":["replication.ecr.amazonaws.com"]}}}]}"#,
        ),
    ),
    (
        "AmazonEC2ContainerRegistryPowerUser",
        allows!(
            "ecr:GetAuthorizationToken",
            "ecr:BatchCheckLayerAvailability",
            "ecr:GetDownloadUrlForLayer",
            "ecr:GetRepositoryPolicy",
            "ecr:DescribeRepositories",
            "ecr:ListImages",
            "ecr:DescribeImages",
            "ecr:BatchGetImage",
            "ecr:GetLifecyclePolicy",
            "ecr:GetLifecyclePolicyPreview",
            "ecr:ListTagsForResource",
            "ecr:DescribeImageScanFindings",
            "ecr:InitiateLayerUpload",
            "ecr:UploadLayerPart",
            "ecr:CompleteLayerUpload",
            "ecr:PutImage",
        ),
    ),
    (
        "AmazonEC2ContainerRegistryReadOnly",
        allows!(
            "ecr:GetAuthorizationToken",
            "ecr:BatchCheckLayerAvailability",
            "ecr:GetDownloadUrlForLayer",
            "ecr:GetRepositoryPolicy",
            "ecr:DescribeRepositories",
            "ecr:ListImages",
            "ecr:DescribeImages",
            "ecr:BatchGetImage",
            "ecr:GetLifecyclePolicy",
            "ecr:GetLifecyclePolicyPreview",
            "ecr:ListTagsForResource",
            "ecr:DescribeImageScanFindings",
        ),
    ),
    (
        "AmazonEC2ContainerRegistryPullOnly",
        allows!(
            "ecr:GetAuthorizationToken",
            "ecr:BatchImportUpstreamImage",
            "ecr:BatchGetImage",
            "ecr:GetDownloadUrlForLayer",
        ),
    ),
    ("AmazonElasticContainerRegistryPublicFullAccess", allows!("ecr-public:*", "sts:GetServiceBearerToken")),
    (
        "AmazonElasticContainerRegistryPublicPowerUser",
        allows!(
            "ecr-public:GetAuthorizationToken",
            "sts:GetServiceBearerToken",
            "ecr-public:BatchCheckLayerAvailability",
            "ecr-public:GetRepositoryPolicy",
            "ecr-public:DescribeRepositories",
            "ecr-public:DescribeRegistries",
            "ecr-public:DescribeImages",
            "ecr-public:DescribeImageTags",
            "ecr-public:GetRepositoryCatalogData",
            "ecr-public:GetRegistryCatalogData",
            "ecr-public:InitiateLayerUpload",
            "ecr-public:UploadLayerPart",
            "ecr-public:CompleteLayerUpload",
            "ecr-public:PutImage",
        ),
    ),
    (
        "AmazonElasticContainerRegistryPublicReadOnly",
        allows!(
            "ecr-public:GetAuthorizationToken",
            "sts:GetServiceBearerToken",
            "ecr-public:BatchCheckLayerAvailability",
            "ecr-public:GetRepositoryPolicy",
            "ecr-public:DescribeRepositories",
            "ecr-public:DescribeRegistries",
            "ecr-public:DescribeImages",
            "ecr-public:DescribeImageTags",
            "ecr-public:GetRepositoryCatalogData",
            "ecr-public:GetRegistryCatalogData",
        ),
    ),
];

#[cfg(test)]
mod tests {
    use strongroom::policy::{Kind, Policy};

    use super::*;

    #[test]
    fn managed_policies_are_policies() {
        assert!(names().count() >= 8);
        for name in names() {
            let document = managed(name).unwrap();
            Policy::parse(document, Kind::Identity).unwrap_or_else(|error| panic!("{name}: {error}: {document}"));
            assert_eq!(managed(&format!("arn:aws:iam::aws:policy/{name}")), Some(document));
        }
        assert_eq!(managed("Other"), None);
    }
}
