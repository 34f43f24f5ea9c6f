// What the build begins with: joins the handler and the contract.

import * as control from "scutwork:task/control@0.1.0";
import * as log from "scutwork:task/log@0.1.0";

import { handle } from "./handler.js";
import { plugin } from "./scutwork.js";

export const handler = plugin(handle, { control, log });
