"""`/api/me`: a program's view of the person it acts for, and that person's keys."""

from __future__ import annotations

from datetime import datetime

from ninja import Query, Router, Schema, Status
from pydantic import Field

from accounts import selectors, services
from accounts.models import ApiKey, User
from accounts.requests import ApiRequest
from config.api_lists import NEXT, ListQuery, cut_list
from config.api_schema import RequestSchema

router = Router()


class Me(Schema):
    id: int
    username: str
    name: str = Field(description="The display name, or the user name where none is set.")
    email: str
    theme: str = Field(description="system, light or dark.")
    default_model: str = Field(description="Slug of the model new conversations start with; empty: the installation's.")
    training_consent: bool = Field(description="Whether your conversations may be trained on. Off until you say so.")
    is_admin: bool = Field(alias="is_superuser")
    date_joined: datetime

    @staticmethod
    def resolve_training_consent(user: User) -> bool:
        return user.training_consent_at is not None


class MeChange(RequestSchema):
    name: str | None = Field(None, max_length=150, examples=["Ada Lovelace"])
    theme: str | None = Field(None, description="system, light or dark.", examples=["dark"])
    default_model: str | None = Field(None, max_length=200, examples=["smollm2-135m-instruct"])
    training_consent: bool | None = Field(None, description="false clears what datasets hold of you within a minute.")


class Key(Schema):
    id: int
    name: str
    prefix: str = Field(description="The first characters, to tell keys apart.")
    created_at: datetime
    last_used_at: datetime | None


class NewKey(Key):
    key: str = Field(description="The key itself. It is shown this once and cannot be shown again.")


class KeyList(Schema):
    items: list[Key]
    next_cursor: str | None = NEXT


class KeyCreate(RequestSchema):
    name: str = Field("key", max_length=100, examples=["notebook"])


@router.get("", response=Me, summary="Who am I")
def get_me(request: ApiRequest) -> User:
    return request.auth


@router.patch("", response=Me, summary="Change my profile")
def change_me(request: ApiRequest, change: MeChange) -> User:
    """Only the fields that are sent are changed."""
    return services.update_profile(request.auth, **change.dict(exclude_unset=True))


@router.get("/keys", response=KeyList, summary="List my API keys")
def list_keys(request: ApiRequest, query: Query[ListQuery]) -> dict[str, object]:
    return cut_list(list(selectors.list_keys(user=request.auth)), query, key=lambda key: key.pk)


@router.post("/keys", response={201: NewKey}, summary="Create an API key")
def create_key(request: ApiRequest, new: KeyCreate) -> Status[dict[str, object]]:
    key, plain = services.create_key(request.auth, name=new.name)
    return Status(201, {**Key.from_orm(key).dict(), "key": plain})


@router.delete("/keys/{int:key_id}", response={204: None}, summary="Revoke an API key")
def revoke_key(request: ApiRequest, key_id: int) -> Status[None]:
    """It stops working at once, and the sockets opened with it are closed."""
    key: ApiKey = selectors.get_key(key_id, user=request.auth)
    services.revoke_key(key)
    return Status(204, None)
