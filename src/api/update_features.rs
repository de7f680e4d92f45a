//! UpdateFeatures, versions 0 to 2 (KIP-584, KIP-778 kinds of update and dry runs from 1; one result
//! for all in 2).
//!
//! `cluster.version` rises to what every broker supports; the other features have the level that
//! works and no other. Either all updates happen or none.

use std::borrow::Cow;
use std::rc::Rc;

use super::api_versions::{CLUSTER_VERSION, FEATURES};
use super::call::{Call, Handled, check_count};
use super::dispatch::Api;
use super::error_mapping::{control_code, control_message, controller_code};
use crate::cluster::controller::{Command, CommandReply};
use crate::wire::error_code::ErrorCode;
use crate::wire::messages::update_features::{
    FeatureUpdateKey, UpdatableFeatureResult, UpdateFeaturesRequest, UpdateFeaturesResponse,
};

/// Last version with a result for each feature.
const RESULTS_UNTIL: i16 = 1;

type Refusal = (ErrorCode, String);

/// Answers an UpdateFeatures.
pub(super) async fn handle(api: Rc<Api>, call: Call) -> Handled {
    let request: UpdateFeaturesRequest<'_> = call.request()?;
    let updates = &request.feature_updates;
    check_count(updates.len(), FEATURES.len() + 1)?;
    let refusal = match refusal(updates) {
        Some(refusal) => Some(refusal),
        None => raise(&api, updates, request.validate_only).await.err(),
    };
    let refusal = refusal.map(|(code, why)| {
        let all = "The update failed for all features since the following feature had an error: ";
        (code.code(), format!("{all}{why}"))
    });
    let (error_code, message) = refusal.unzip();
    let mut response = UpdateFeaturesResponse {
        error_code: error_code.unwrap_or(0),
        error_message: message.map(Cow::Owned),
        ..UpdateFeaturesResponse::default()
    };
    if call.version <= RESULTS_UNTIL {
        let result = |update: &FeatureUpdateKey<'_>| UpdatableFeatureResult {
            feature: Cow::Owned(update.feature.to_string()),
            error_code: response.error_code,
            error_message: response.error_message.clone(),
        };
        response.results = updates.iter().map(result).collect();
    }
    Ok(call.reply(&response))
}

/// Why the updates are refused, before the controller is asked.
fn refusal(updates: &[FeatureUpdateKey<'_>]) -> Option<Refusal> {
    for (index, update) in updates.iter().enumerate() {
        let (name, level) = (update.feature.as_ref(), update.max_version_level);
        if updates[..index]
            .iter()
            .any(|other| other.feature == update.feature)
        {
            return Some((
                ErrorCode::InvalidRequest,
                format!("Feature {name} is named more than once."),
            ));
        }
        let working = FEATURES.iter().find(|(feature, _)| *feature == name);
        let invalid = |why: String| {
            let why = format!("Invalid update version {level} for feature {name}. {why}");
            Some((ErrorCode::InvalidUpdateVersion, why))
        };
        match working {
            Some((_, working)) if *working == level => {}
            Some((_, working)) => return invalid(format!("Its level is {working}, and fixed.")),
            None if name != CLUSTER_VERSION => {
                return invalid("This cluster does not have this feature.".to_string());
            }
            None if level < 1 => return invalid("The least level is 1.".to_string()),
            None => {}
        }
    }
    None
}

async fn raise(
    api: &Api,
    updates: &[FeatureUpdateKey<'_>],
    validate_only: bool,
) -> Result<(), Refusal> {
    let update = updates
        .iter()
        .find(|update| update.feature == CLUSTER_VERSION);
    let Some(update) = update else {
        return Ok(());
    };
    let command = Command::RaiseClusterVersion {
        version: update.max_version_level.unsigned_abs(),
        validate_only,
    };
    match api.router.control(command).await {
        Ok(CommandReply::ClusterVersionRaised(result)) => {
            result.map_err(|error| (controller_code(&error), error.to_string()))
        }
        Ok(other) => unreachable!("another command's reply: {other:?}"),
        Err(failure) => Err((control_code(failure), control_message(failure).to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_work_stay_as_they_are_and_others_are_not_there() {
        let update = |feature: &'static str, max_version_level| FeatureUpdateKey {
            feature: Cow::Borrowed(feature),
            max_version_level,
            ..FeatureUpdateKey::default()
        };
        let code = |updates: &[FeatureUpdateKey<'_>]| refusal(updates).map(|(code, _)| code);
        let invalid = Some(ErrorCode::InvalidUpdateVersion);
        assert_eq!(code(&[update("group.version", 1)]), None);
        assert_eq!(code(&[update("group.version", 0)]), invalid);
        assert_eq!(code(&[update("metadata.version", 7)]), invalid);
        assert_eq!(code(&[update(CLUSTER_VERSION, 0)]), invalid);
        assert_eq!(code(&[update(CLUSTER_VERSION, 1)]), None);
        let twice = [update(CLUSTER_VERSION, 1), update(CLUSTER_VERSION, 1)];
        assert_eq!(code(&twice), Some(ErrorCode::InvalidRequest));
    }
}
