"""What every part of the REST API shares: bodies, fields, errors, paging, entity tags, the base viewset, the schema."""
