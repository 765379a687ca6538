from fastapi import FastAPI
from app.api.main import router

app = FastAPI(title="Full Stack FastAPI Project")
app.include_router(router)
