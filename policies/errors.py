"""What the policies app refuses."""

from opencrane.errors import ConflictError, NotFoundError


class PolicyNotFoundError(NotFoundError):
    code, default_message = "POLICY_NOT_FOUND", "There is no access policy of that name."


class PolicyExistsError(ConflictError):
    code, default_message = "POLICY_EXISTS", "There is an access policy of that name already."


class PolicyInUseError(ConflictError):
    """Tenants name the policy in `policyRef`; `detail` lists up to ten of them."""

    default_message = "Tenants refer to this access policy."


class GroupNotFoundError(NotFoundError):
    code, default_message = "GROUP_NOT_FOUND", "There is no such group."


class GroupExistsError(ConflictError):
    code, default_message = "GROUP_EXISTS", "There is a group of that name already."
