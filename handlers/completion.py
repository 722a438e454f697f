"""The completion endpoints that answer at once: single prompt, generate, query, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from handlers.answers import describe, single_failure, status_of, success
from handlers.api import ApiHandler
from vision.errors import InvalidRequest, UnknownMission
from vision.missions.events import Outcome
from vision.missions.service import Progress
from vision.models.call import Completion


class SinglePromptHandler(ApiHandler):
    """POST /api/completion/single-prompt-request: one call of one model."""

    _call: asyncio.Task[Completion] | None = None

    async def post(self) -> None:
        body = self.json_body("single-prompt-request")
        # A task of its own, so that a client that hangs up ends the model call that it pays for.
        self._call = asyncio.create_task(
            self.services.single.complete(body["model"], body["params"])
        )
        await asyncio.wait({self._call})
        if self._call.cancelled():
            return
        completion = self._call.result()
        results = [{"role": "assistant", "content": text} for text in completion.texts]
        data: dict[str, Any] = {"result": results[0]}
        if len(results) > 1:
            data["results"] = results
        data["usage"] = completion.usage
        self.answer_json({"code": 200, "data": data, "errorMessage": ""})

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._call is not None:
            self._call.cancel()

    def shape_failure(self, error: BaseException) -> tuple[int, dict[str, Any]]:
        return status_of(error), single_failure(error)


class GenerateHandler(ApiHandler):
    """POST /api/completion/generate: start a mission."""

    async def post(self) -> None:
        body = self.json_body("generate")
        mission_id = await self.services.missions.start(
            body["promptList"],
            base_mission_id=body.get("baseMissionId"),
            key=self.idempotency_key(),
        )
        self.answer({"missionId": mission_id})


class MissionQueryHandler(ApiHandler):
    """GET /api/completion/mission-query: the results of a mission, once it has ended."""

    async def get(self) -> None:
        progress = await self.services.missions.progress(self.query_text("missionId"))
        prompts = progress.prompts
        data = [node_result(prompts[id_], outcome) for id_, outcome in progress.outcomes.items()]
        if progress.status.final:
            self.answer_json(success(data) | {"status": progress.status})
        else:
            # The documented answer of an unfinished mission, HTTP 200 included; `nodes` is added.
            unfinished = {"statusCode": 1100, "message": "mission not finished yet."}
            self.answer_json(unfinished | {"status": progress.status, "nodes": data})

    def shape_failure(self, error: BaseException) -> tuple[int, dict[str, Any]]:
        """A wrong id has a documented answer, word for word; `error` says what is wrong."""
        if isinstance(error, InvalidRequest | UnknownMission):
            document = {"statusCode": 400, "message": "Bad Request", "error": describe(error)}
            return 400, document
        return super().shape_failure(error)


class CancelHandler(ApiHandler):
    """POST /api/completion/cancel: end a mission, or one node of it."""

    async def post(self) -> None:
        body = self.json_body("cancel")
        mission_id, node_id = body["missionId"], body.get("id")
        progress = await self.services.missions.cancel(mission_id, node_id)
        self.answer(cancelled(mission_id, node_id, progress))


def cancelled(mission_id: str, node_id: str | None, progress: Progress) -> dict[str, Any]:
    """How what was to be cancelled ended up."""
    answer: dict[str, Any] = {"missionId": mission_id, "status": progress.status}
    if node_id is not None:
        answer |= {"id": node_id, "status": progress.outcomes[node_id].status}
    return answer


def node_result(prompt: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """One entry of mission-query: the documented two fields, then what was added."""
    return {
        "id": prompt["id"],
        "content": outcome.content,
        "mid": prompt["mid"],
        "dependenceIdList": prompt.get("dependenceIdList") or [],
        "status": outcome.status,
        "finishReason": outcome.finish_reason,
        "usage": outcome.usage,
        "attempts": outcome.attempts,
        "startedAt": outcome.started,
        "finishedAt": outcome.finished,
        "error": outcome.error,
    }
