//! Tells the kinds of errors apart.

use super::ClientError;
use crate::kind::ErrorKind;

impl ClientError {
    /// Returns the kind of failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Broker(error) | Self::Untold { error, .. } => error.kind(),
            Self::Name(_) | Self::Id(_) | Self::Encode(_) | Self::NotUtf8(_) | Self::Header(_) => {
                ErrorKind::InvalidArgument
            }
            Self::NoChain { .. }
            | Self::NoStage { .. }
            | Self::NoLetter { .. }
            | Self::NoManifest(_)
            | Self::NoPluginFile(_)
            | Self::LargeMissing { .. } => ErrorKind::NotFound,
            Self::Closing { .. } | Self::Crowded(_) => ErrorKind::Busy,
            Self::Read { .. } | Self::ItemFile { .. } => ErrorKind::Other,
            Self::Files { error, .. } => error.kind(),
            Self::Manifest { .. }
            | Self::Chain { .. }
            | Self::Plugin { .. }
            | Self::NoPlugin { .. }
            | Self::OnServer { .. }
            | Self::NoSchemaFile(_)
            | Self::Schema { .. }
            | Self::Contract(_)
            | Self::PluginFolder(_)
            | Self::NoStore { .. }
            | Self::NoSecret { .. }
            | Self::NoArchive { .. } => ErrorKind::InvalidManifest,
            Self::NoTopics(_)
            | Self::VersionConflict { .. }
            | Self::IntakeTaken { .. }
            | Self::IntakeShared { .. }
            | Self::WouldDrop { .. } => ErrorKind::Conflict,
            Self::NotMoved { .. } => ErrorKind::Incomplete,
            Self::Closed(_) => ErrorKind::Closed,
            Self::TooLarge { .. } | Self::Oversized { .. } | Self::ManifestTooLarge { .. } => ErrorKind::TooLarge,
            Self::TimedOut(_) => ErrorKind::TimedOut,
            Self::Registry { .. } | Self::LargeDamaged { .. } => ErrorKind::Damaged,
        }
    }

    /// Returns `true` if the server is away. The same call can succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Broker(error) if error.is_transient())
    }
}
