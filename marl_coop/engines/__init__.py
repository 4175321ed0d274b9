"""Engines turn chats into sampled replies; `base` has the contract."""

from marl_coop.engines.base import Engine, EngineError, FinishReason, Generation, Request

__all__ = ["Engine", "EngineError", "FinishReason", "Generation", "Request"]
