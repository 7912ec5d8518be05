import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// The query API that `npm run dev` proxies to.
const api = process.env.NOMNOM_DASHBOARD_URL ?? "http://127.0.0.1:3000";

export default defineConfig({
  plugins: [react()],
  server: { port: 5173, proxy: { "/api": api, "/docs": api, "/openapi.json": api } },
  build: { target: "es2022", sourcemap: false },
  test: { environment: "jsdom", include: ["src/**/*.test.{ts,tsx}"], setupFiles: ["src/test-setup.ts"] },
});
